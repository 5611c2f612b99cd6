"""Reads a stored notebook for Sphinx: a chart becomes its picture, with the specification beside it for live charts."""

import json
import re

import nbformat

VEGA_LITE = "application/vnd.vegalite.v5+json"
PICTURE = "image/svg+xml"
MARKDOWN = "text/markdown"


def read(text: str) -> nbformat.NotebookNode:
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # pages of the book are beside the notebooks' folder
            cell.source = cell.source.replace("](../lib/site/pages/", "](../")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if VEGA_LITE in data:
                output.data = nbformat.from_dict({"text/html": figure(data)})
            elif MARKDOWN in data:  # Sphinx follows links in prose only
                data[MARKDOWN] = re.sub(r"\]\((\w+)\.ipynb", r"](\1.html", data[MARKDOWN])
    notebook.metadata["language_info"] = {"name": "typescript", "pygments_lexer": "typescript"}
    return notebook


def figure(data: dict) -> str:
    specification = json.dumps(data[VEGA_LITE], ensure_ascii=False).replace("<", "\\u003c")
    return f'<figure class="chart">{data[PICTURE]}<script type="application/json">{specification}</script></figure>'
