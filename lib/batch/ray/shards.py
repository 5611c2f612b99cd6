"""The output: a folder of shards that are written whole, each named by what it answers."""

import hashlib
import io
import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType

from lines import searched

RUN, SETTINGS, STARTED = "_run", "_settings.json", "_started"
PARQUET = pa.schema({name: pa.string() for name in ("id", "custom_id", "response", "error")})


class Shards:
    """Shards in `folder`, a path or a URI, of one format. Only the run that began last writes them."""

    def __init__(self, folder: str, suffix: str, run: str) -> None:
        self.folder, self.suffix, self.run = folder, suffix, run

    def check(self, settings: str) -> None:
        """Throws a ValueError where results of these settings cannot be written."""
        filesystem, base = FileSystem.from_uri(self.folder)
        if filesystem.get_file_info(base).type == FileType.File:
            raise ValueError(f"--output must be a folder with --ray: {self.folder} is a file.")
        before = self._read(SETTINGS)
        if before is not None and before != settings.encode():
            raise ValueError(f"{self.folder} holds results of other settings, {before.decode()}: take those, or another --output.")
        if before is None:
            for info in filesystem.get_file_info(FileSelector(base, allow_not_found=True)):
                if info.path.endswith(self.suffix):
                    raise not_ours(info.path)

    def begin(self, settings: str) -> int:
        """Makes this run the one that writes; gives how many requests the run before had under way when it ended."""
        self.check(settings)
        filesystem, base = FileSystem.from_uri(self.folder)
        filesystem.create_dir(f"{base}/{STARTED}", recursive=True)
        self._write(SETTINGS, settings.encode())
        self._write(RUN, self.run.encode())
        lost = 0
        for folder in (base, f"{base}/{STARTED}"):
            for info in filesystem.get_file_info(FileSelector(folder)):
                if info.base_name.startswith(".writing-"):
                    filesystem.delete_file(info.path)
                elif folder != base:
                    lost += 0 if self.has(info.base_name) else int(self._read(f"{STARTED}/{info.base_name}"))
                    filesystem.delete_file(info.path)
        return lost

    def is_among(self, pattern: str) -> bool:
        """Whether a pattern of files would name shards."""
        filesystem, base = FileSystem.from_uri(self.folder)
        elsewhere, _, names = searched(pattern)
        return filesystem == elsewhere and names(f"{base}/shard{self.suffix}")

    def has(self, name: str) -> bool:
        filesystem, base = FileSystem.from_uri(self.folder)
        return filesystem.get_file_info(f"{base}/{name}{self.suffix}").type == FileType.File

    def start(self, name: str, requests: int) -> bool:
        """Notes that a shard is being computed. True if that was begun before."""
        again = self._read(f"{STARTED}/{name}") is not None
        self._write(f"{STARTED}/{name}", str(requests).encode())
        return again

    def commit(self, name: str, results: list[dict]) -> None:
        self._write(f"{name}{self.suffix}", encoded(results, self.suffix))
        filesystem, base = FileSystem.from_uri(self.folder)
        try:
            filesystem.delete_file(f"{base}/{STARTED}/{name}")
        except FileNotFoundError:
            pass  # an actor that was believed dead wrote the same shard

    def _read(self, name: str) -> bytes | None:
        filesystem, base = FileSystem.from_uri(self.folder)
        try:
            with filesystem.open_input_file(f"{base}/{name}") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all: nobody sees a file that is being written."""
        filesystem, base = FileSystem.from_uri(self.folder)
        folder, _, file_name = f"{base}/{name}".rpartition("/")
        temporary = f"{folder}/.writing-{uuid.uuid4().hex}-{file_name}"
        with filesystem.open_output_stream(temporary) as file:
            file.write(content)
        if name not in (RUN, SETTINGS) and self._read(RUN) != self.run.encode():
            filesystem.delete_file(temporary)
            raise RuntimeError(f"Another run writes {self.folder} now: this one ends.")
        filesystem.move(temporary, f"{base}/{name}")


def not_ours(path: str) -> ValueError:
    return ValueError(f"{path} holds no results of --ray: take another --output.")


def shard_name(ids: list[bytes]) -> str:
    """The same requests give the same name, whatever was answered and when."""
    return hashlib.sha256(b"".join(sorted(ids))).hexdigest()[:32]


def encoded(results: list[dict], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(result) + "\n" for result in results).encode()
    rows = [{name: as_text(value) for name, value in result.items()} for result in results]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=PARQUET), buffer)
    return buffer.getvalue()


def as_text(value) -> str | None:
    """What Parquet takes: no halves of characters."""
    text = value if isinstance(value, str | None) else json.dumps(value)
    return text and text.encode("utf-8", "replace").decode()
