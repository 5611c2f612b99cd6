"""The lines of a batch as a Ray Data source: JSON lines by ranges of bytes, Parquet by row groups, from any file system of PyArrow."""

import fnmatch
import hashlib
import io
import json
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

LEAST_RANGE, MOST_RANGES = 4 << 20, 1000
"""A task reads so many bytes or more, of one file or several: few enough tasks for the driver, whatever there is to read."""

BLOCK_LINES = 512
MOST_BYTES = 1 << 24
"""Of a line, as in lib/batch/lines.ts."""

SCHEMA = pa.schema({"file": pa.int64(), "at": pa.int64(), "line": pa.binary()})
"""Which file, where in it (a byte, or for Parquet a row), and what it says: empty where it is too long."""

Part = tuple[int, str, Callable]
"""A range of a file: which one, its path, and what reads the range from the open file."""


def find_files(pattern: str) -> tuple[FileSystem, list[str]]:
    """The files that a path, a folder, a glob or a URI of one of these names, in order."""
    filesystem, base, names = searched(pattern)
    if filesystem.get_file_info(base).type == FileType.File:
        return filesystem, [base] if names(base) else []
    below = filesystem.get_file_info(FileSelector(base, recursive=True, allow_not_found=True))
    return filesystem, sorted(info.path for info in below if info.type == FileType.File and names(info.path))


def searched(pattern: str) -> tuple[FileSystem, str, Callable[[str], bool]]:
    """Where the files are that a pattern names, and which of those there it names. What exists is meant as it is written."""
    filesystem, path = FileSystem.from_uri(pattern)
    path = path.rstrip("/")
    base, rest = path, []
    while set(base) & set("*?[") and filesystem.get_file_info(base).type == FileType.NotFound:
        base, _, part = base.rpartition("/")
        rest.insert(0, part)

    def names(file: str) -> bool:
        below = file.removeprefix(f"{base}/").split("/")
        if not file.startswith(f"{base}/") or any(part.startswith(("_", ".")) for part in below):
            return file == path
        return not rest or len(below) == len(rest) and all(map(fnmatch.fnmatchcase, below, rest))

    return filesystem, base, names


def lines_between(file, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin from one byte up to another, with where they do."""
    reader = io.BufferedReader(file, 1 << 20)
    reader.seek(max(start - 1, 0))
    if start > 0:
        skip_line(reader)
    while (at := reader.tell()) < end:
        line = reader.readline(MOST_BYTES + 1)
        if len(line) > MOST_BYTES and not line.endswith(b"\n"):
            skip_line(reader)
            yield at, b""
            continue
        line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
        if line.strip(b" \t\r"):  # as lib/batch/lines.ts: each of these lines is answered
            yield at, line


def skip_line(reader: io.BufferedReader) -> None:
    while (part := reader.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def rows_of(file, group: int, first: int) -> Iterator[tuple[int, bytes]]:
    """The rows of a Parquet file's row group, as lines of JSON."""
    at = first
    for batch in pq.ParquetFile(file).iter_batches(BLOCK_LINES, row_groups=[group]):
        for row in batch.to_pylist():
            if isinstance(row.get("body"), str):
                row["body"] = parsed(row["body"])
            yield at, json.dumps(without_nulls(row), default=str).encode()
            at += 1


def parsed(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def without_nulls(value):
    """Columns of structs have all the fields of all rows."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return value


class Lines(Datasource):
    """The lines of the files that a pattern names."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.filesystem, self.files = find_files(pattern)
        self.sizes = [info.size or 0 for info in self.filesystem.get_file_info(self.files)]
        self.range = max(LEAST_RANGE, sum(self.sizes) // MOST_RANGES)

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(self.sizes)

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None, data_context=None) -> list[ReadTask]:
        tasks, parts, together = [], [], 0
        for part, size in self._parts():
            parts.append(part)
            together += size
            if together >= self.range:
                tasks.append(self._task(parts))
                parts, together = [], 0
        return [*tasks, self._task(parts)] if parts else tasks

    def _parts(self) -> Iterator[tuple[Part, int]]:
        """All there is, with how many bytes each takes."""
        for number, (path, size) in enumerate(zip(self.files, self.sizes)):
            if not path.endswith(".parquet"):
                for start in range(0, size, self.range):
                    end = min(size, start + self.range)
                    yield (number, path, lambda file, start=start, end=end: lines_between(file, start, end)), end - start
                continue
            with self.filesystem.open_input_file(path) as file:
                groups = pq.ParquetFile(file).metadata
            first = 0
            for group in range(groups.num_row_groups):
                about = groups.row_group(group)
                yield (number, path, lambda file, group=group, first=first: rows_of(file, group, first)), about.total_byte_size
                first += about.num_rows

    def _task(self, parts: list[Part]) -> ReadTask:
        filesystem = self.filesystem

        def blocks() -> Iterator[pa.Table]:
            for number, path, read in parts:
                with filesystem.open_input_file(path) as file:
                    rows: list[tuple[int, bytes]] = []
                    for row in read(file):
                        rows.append(row)
                        if len(rows) == BLOCK_LINES:
                            yield table(number, rows)
                            rows = []
                    yield table(number, rows)

        metadata = BlockMetadata(num_rows=None, size_bytes=self.range, input_files=None, exec_stats=None)
        return ReadTask(blocks, metadata, schema=SCHEMA)


def table(number: int, rows: list[tuple[int, bytes]]) -> pa.Table:
    columns = [[number] * len(rows), [at for at, _ in rows], [line for _, line in rows]]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA)], schema=SCHEMA)


def custom_id(line: bytes) -> str | None:
    """The name that a line has, if it can be read."""
    try:
        name = json.loads(line)["custom_id"]
        return name if isinstance(name, str) and name else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def identity(name: str | None, path: str, at: int) -> bytes:
    """16 bytes that name a result: after its custom_id, or where it has none of its own, after its line's place."""
    what = f"place {path}:{at}" if name is None else f"name {name}"
    return hashlib.sha256(what.encode("utf-8", "surrogatepass")).digest()[:16]
