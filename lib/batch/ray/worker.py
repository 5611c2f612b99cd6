"""A worker process, `deno task worker`, that is started again when it dies; a request that kills it is found and given up."""

import json
import queue
import subprocess
import tempfile
import threading

ATTEMPTS = 3
"""So often a request that was alone when the worker died is tried, and a worker that does not come up is started."""


class Worker:
    """One process at a time, which several threads may ask at once. It ends when its input closes, at the end of this one."""

    def __init__(self, command: list[str], window: int) -> None:
        self.command, self.window = command, window
        """So many lines it has at most without having answered them: they are lost with it."""
        self.process: Process | None = None
        self.lost = 0
        """Requests that workers had when they died."""
        self.door = threading.Lock()
        """Whoever asks goes through it. It is closed while somebody finds the request that kills the worker."""
        self.asking, self.left = 0, threading.Condition()

    def answer(self, lines: list[bytes]) -> list[dict]:
        """A result for each line."""
        with self.door:
            process = self._running()
            with self.left:
                self.asking += 1
        results = process.ask(lines)
        with self.left:
            self.asking -= 1
            self.left.notify_all()
        if None not in results:
            return results
        with self.door:
            with self.left:
                self.left.wait_for(lambda: self.asking == 0)
            return self._completed(lines, results)

    def take_lost(self) -> int:
        """How many requests were lost since this was called last."""
        with self.door:
            lost, self.lost = self.lost, 0
        return lost

    def _completed(self, lines: list[bytes], results: list[dict | None]) -> list[dict]:
        """What the worker owed when it died is asked for again in two halves, one after the other, until the request that
        kills it is alone."""
        owed = [i for i, result in enumerate(results) if result is None]
        middle = (len(owed) + 1) // 2
        for half in filter(None, (owed[:middle], owed[middle:])):
            again = [lines[i] for i in half]
            for i, result in zip(half, self._answer_alone(again)):
                results[i] = result
        return results

    def _answer_alone(self, lines: list[bytes]) -> list[dict]:
        """With nobody else's requests in the worker."""
        if len(lines) > 1:
            return self._completed(lines, self._running().ask(lines))
        for _ in range(ATTEMPTS):
            results = self._running().ask(lines)
            if results[0]:
                return results
        message = f"The worker died of this request, {ATTEMPTS} times."
        return [{"response": None, "error": {"code": "worker_died", "message": message}}]

    def _running(self) -> "Process":
        """A process that has shown that it answers."""
        if self.process and not self.process.ended:
            return self.process
        if self.process:
            self.lost += len(self.process.owed)
        for _ in range(ATTEMPTS):
            self.process = Process(self.command, self.window)
            if self.process.ask([b"{}"])[0]:
                return self.process
        raise RuntimeError(f"The worker does not start: {self.process.last_words()}")


class Process:
    """A worker from its start to its end."""

    def __init__(self, command: list[str], window: int) -> None:
        self.said, pipe = tempfile.TemporaryFile(), subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.said)
        self.room, self.writing = threading.Semaphore(window), threading.Lock()
        self.asked, self.ended = 0, False
        self.owed: dict[int, tuple[queue.SimpleQueue, int]] = {}
        """By the number of a line: where its result goes, and its place among those that were asked with it."""
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, lines: list[bytes]) -> list[dict | None]:
        """Results as far as they come: None for what the worker owed when it died."""
        answers, sent, results = queue.SimpleQueue(), 0, [None] * len(lines)
        for i, line in enumerate(lines):
            self.room.acquire()
            with self.writing:
                if self.ended:
                    self.room.release()
                    break
                self.asked, sent = self.asked + 1, sent + 1
                self.owed[self.asked] = answers, i
                try:
                    self.child.stdin.write(line + b"\n")
                    self.child.stdin.flush()
                except OSError:
                    pass  # it died, as the reader sees
        for _ in range(sent):
            i, result = answers.get()
            results[i] = result
        return results

    def last_words(self) -> str:
        self.said.seek(0)
        return self.said.read().decode(errors="replace").strip().split("\n")[-1] or "it ended without a word"

    def _read(self) -> None:
        try:
            while (answer := self.child.stdout.readline()).endswith(b"\n"):
                result = json.loads(answer)
                answers, i = self.owed.pop(int(result["id"].rpartition("-")[2]))
                answers.put((i, result))
                self.room.release()
        finally:  # it died, or says what nobody can read
            self.child.kill()
            self.child.wait()
            with self.writing:
                self.ended = True
            for answers, i in self.owed.values():
                answers.put((i, None))
            self.room.release()  # who waits for room sees that it has ended, and passes that on
