"""A person at a notebook, for kernel_test.ts: starts the Deno kernel and does what standard input says, a JSON line each.

{"start": code}      runs a cell and does not wait for it
{"text": "…"}        waits until the running cell has printed this
{"interrupt": true}  presses the stop button
{"end": true}        waits until the running cell ends
{"restart": true}    restarts the kernel

For each, standard output gets a line: {"outputs": […]} with what the cell has printed, shown or thrown since, in order.
"""

import json
import sys
import time
from pathlib import Path
from queue import Empty

from jupyter_client import KernelManager

sys.path.insert(0, str(Path(__file__).parents[2] / "lib" / "jupyter"))
from execute import MARK  # noqa: E402

SECONDS = 180


class Session:
    def __init__(self, folder: str):
        self.manager = KernelManager(kernel_name="deno")
        self.manager.start_kernel(cwd=folder, stdout=sys.stderr)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)
        self.cell = None

    def start(self, code):
        self.cell = self.client.execute(code)
        return []

    def interrupt(self, _):
        self.manager.interrupt_kernel()
        return []

    def restart(self, _):
        self.manager.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=SECONDS)
        # That takes the old kernel's last words for a sign that the new one is heard; what is published before it is, is lost.
        for _ in range(SECONDS):
            asked = self.client.kernel_info()
            try:
                while self.client.get_iopub_msg(timeout=1)["parent_header"].get("msg_id") != asked:
                    pass
                return []
            except Empty:
                pass
        raise TimeoutError("nothing that the new kernel publishes arrives")

    def text(self, text):
        return self.listen(lambda kind, content: text in content.get("text", ""))

    def end(self, _):
        outputs = self.listen(lambda kind, content: content.get("execution_state") == "idle")
        # The kernel may say that before it has sent all outputs; a marker goes through the same queue. See execute.py.
        marker = self.client.execute(MARK, silent=True, store_history=False)
        return outputs + self.listen(lambda kind, content: kind == "omnibus_marker", marker)

    def listen(self, is_last, marker=None):
        outputs, deadline = [], time.time() + SECONDS
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.time()))
            if message["parent_header"].get("msg_id") not in (self.cell, marker):
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                outputs.append(content["text"])
            elif kind == "error":
                outputs.append({"name": content["ename"], "message": content["evalue"]})
            elif kind in ("display_data", "update_display_data", "execute_result"):
                outputs.append({"type": kind, "plain": content["data"].get("text/plain")})
            if is_last(kind, content):
                return outputs


def main():
    session = Session(sys.argv[1])
    try:
        for line in sys.stdin:
            (name, value), = json.loads(line).items()
            print(json.dumps({"outputs": getattr(session, name)(value)}), flush=True)
    finally:
        session.client.stop_channels()
        session.manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
