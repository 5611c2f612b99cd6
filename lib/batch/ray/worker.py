"""A worker process, `deno task worker`, that is started again when it dies; a request that kills it is found and given up."""

import json
import subprocess
import tempfile
import threading

ATTEMPTS = 3
"""So often a request that was alone when the worker died is tried, and a worker that does not come up is started."""


class Worker:
    """One process. Whoever drops it closes its input, at which it ends."""

    def __init__(self, command: list[str], window: int) -> None:
        self.command, self.window = command, window
        """So many lines it has at most without having answered them: they are lost with it."""
        self.process: subprocess.Popen | None = None
        self.lost = 0
        """Requests that workers had when they died."""

    def answer(self, lines: list[bytes]) -> list[dict]:
        """A result for each line. Where the worker dies, what it owed is asked for again in two halves, one after the other,
        until the request that kills it is alone."""
        if len(lines) == 1:
            return [self._answer_alone(lines[0])]
        results = self._ask(lines)
        owed = [i for i, result in enumerate(results) if result is None]
        middle = (len(owed) + 1) // 2
        for half in filter(None, (owed[:middle], owed[middle:])):
            for i, result in zip(half, self.answer([lines[i] for i in half])):
                results[i] = result
        return results

    def _answer_alone(self, line: bytes) -> dict:
        for _ in range(ATTEMPTS):
            [result] = self._ask([line])
            if result:
                return result
        message = f"The worker died of this request, {ATTEMPTS} times."
        return {"response": None, "error": {"code": "worker_died", "message": message}}

    def _ask(self, lines: list[bytes]) -> list[dict | None]:
        """Results as far as they come: None for what the worker owed when it died."""
        process = self.process or self._start()
        first, sent, room = self.sent + 1, 0, threading.Semaphore(self.window)
        results: list[dict | None] = [None] * len(lines)

        def feed() -> None:
            nonlocal sent
            try:
                for line in lines:
                    room.acquire()
                    sent += 1
                    process.stdin.write(line + b"\n")
                    process.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # it died, as the reader sees

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        for answered in range(len(lines)):
            answer = process.stdout.readline()
            if not answer.endswith(b"\n"):
                self.lost += sent - answered
                self.end()
                break
            result = json.loads(answer)
            results[int(result["id"].rpartition("-")[2]) - first] = result
            room.release()
        room.release(len(lines))
        feeder.join()
        self.sent = first + len(lines) - 1
        return results

    def _start(self) -> subprocess.Popen:
        """A process that has shown that it answers."""
        for _ in range(ATTEMPTS):
            said, pipe = tempfile.TemporaryFile(), subprocess.PIPE
            self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=said)
            self.sent = 0
            if self._ask([b"{}"])[0]:
                return self.process
            said.seek(0)
            reason = said.read().decode(errors="replace").strip().split("\n")[-1]
        raise RuntimeError(f"The worker does not start: {reason or 'it ended without a word'}")

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        self.process = None
