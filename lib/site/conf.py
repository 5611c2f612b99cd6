"""How Sphinx makes the book: pages in Markdown, the stored notebooks as they are, charts that come alive."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for stored_notebooks.py

project = "Omnibus"
html_title = "Omnibus"
author = copyright = "the authors of Omnibus"
extensions = ["myst_nb", "sphinx_design"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # what readers see is what was stored
nb_render_markdown_format = "gfm"  # outputs have tables
nb_custom_formats = {".ipynb": ["stored_notebooks.read", {}]}
suppress_warnings = ["misc.highlighting_failure"]
exclude_patterns = ["cards.md", "goals.md", "all_slides.md", "lib/site/**", "extra/**"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"type": "module"})]
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navigation_with_keys": True,
    "navbar_persistent": [],  # the sidebar has a search field
}
html_extra_path = ["extra"]
