"""Executes one notebook in a fresh Deno kernel, for execute.ts.

Arguments: the notebook's path and the seconds a cell may take. Standard output gets one JSON object a line:
{"cell", "of"} when a cell starts, and at last {"notebook"}, its text with outputs, or {"failure"}.
The end of standard input, which comes when the parent process ends in any way, ends this process and its kernel.
"""

import hashlib
import json
import os
import signal
import sys
import threading

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

MARK = 'Deno.jupyter.broadcast("omnibus_marker", {})'
OUTPUTS = {"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"}
LANGUAGE = {"name": "typescript", "file_extension": ".ts", "mimetype": "text/x.typescript"}
KERNEL = {"name": "deno", "display_name": "Deno", "language": "typescript"}


class Client(NotebookClient):
    """Waits for all outputs of a cell.

    Deno's kernel sends them from a queue and may say "idle" before the queue is empty: nbclient would lose the rest, or
    take it for the next cell's. So a marker goes through the same queue, and what comes before it belongs to the cell.

    Markers have a connection of their own. jupyter_client sends behind the back of asyncio's ZeroMQ socket: were it the one
    on which nbclient waits for the reply, that reply could come in just then without waking who waits.
    """

    marking = None

    def mark(self) -> str:
        """Asks the kernel for a marker; returns the message that it will name as its parent."""
        if self.marking is None:
            self.marking = self.km.client()
            self.marking.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
        return self.marking.execute(MARK, silent=True, store_history=False)

    async def _async_poll_output_msg(self, parent_msg_id, cell, cell_index):
        marker = None
        while True:
            message = await self.kc.iopub_channel.get_msg(timeout=None)
            kind, parent = message["msg_type"], message["parent_header"].get("msg_id")
            if kind == "omnibus_marker" and parent == marker:
                return
            if parent == parent_msg_id and message["content"].get("execution_state") == "idle":
                marker = self.mark()
            elif parent == parent_msg_id or (parent == marker and kind in OUTPUTS):
                self.process_message(message, cell, cell_index)


def read(path: str) -> nbformat.NotebookNode:
    """Reads a notebook of format 4; a cell without an id gets one that is the same in every run."""
    with open(path, encoding="utf-8-sig") as file:  # some editors write a byte order mark
        notebook = json.load(file)
    notebook["nbformat_minor"] = max(5, notebook["nbformat_minor"])
    for i, cell in enumerate(notebook["cells"]):
        cell.setdefault("id", hashlib.sha1(f"{i} {cell['source']}".encode()).hexdigest()[:8])
    return nbformat.reads(json.dumps(notebook), as_version=4)


def tidy(notebook: nbformat.NotebookNode) -> str:
    """The notebook's text, with nothing in it that differs between equal runs."""
    notebook.metadata.update(kernelspec=KERNEL, language_info=LANGUAGE)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return nbformat.writes(notebook) + "\n"


def joined(outputs: list) -> list:
    """Printed lines that follow each other as one output: how the kernel split them is chance."""
    result = []
    for output in outputs:
        if result and output.output_type == "stream" and result[-1].get("name") == output.name:
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def execute(path: str, timeout: int, report) -> dict:
    """The outcome: {"notebook"}, or {"failure"} with the cell's position from 0 and the error."""
    notebook = read(path)
    current = 0

    def starts(cell, cell_index):
        nonlocal current
        current = cell_index
        report({"cell": cell_index, "of": len(notebook.cells)})

    def failure(name, message="", traceback=""):
        return {"failure": {"cell": current, "name": name, "message": message, "traceback": traceback}}

    client = Client(
        notebook,
        kernel_name="deno",
        timeout=timeout,
        iopub_timeout=60,
        raise_on_iopub_timeout=True,  # or else it would go on without the outputs
        record_timing=False,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": os.path.dirname(os.path.abspath(path))}},
        on_cell_start=starts,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        outputs = [output for output in notebook.cells[current].outputs if output.output_type == "error"]
        return failure(error.ename, error.evalue, "\n".join(outputs[-1].traceback) if outputs else "")
    except CellTimeoutError:
        return failure("Timeout", f"the cell, or the last of its outputs, took more than {timeout} s")
    except DeadKernelError:
        return failure("DeadKernel", "the kernel ended while the cell ran")
    return {"notebook": tidy(notebook)}


def end_with_parent():
    """Ends this process as a signal would, so that nbclient stops the kernel."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the kernel inherits these: what it prints by itself goes to standard error
    threading.Thread(target=end_with_parent, daemon=True).start()

    def report(line):
        print(json.dumps(line), file=out, flush=True)

    report(execute(sys.argv[1], int(sys.argv[2]), report))


if __name__ == "__main__":
    main()
