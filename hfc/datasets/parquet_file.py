"""Parquet files whose rows have an image: the path `data.parquet/17` names that of row 17. Only here is pyarrow used.

Threads share what is read: pieces of the column of images, some rows each, of which the newest stay in memory.
"""

import functools
import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from hfc.datasets.archives import LARGEST
from hfc.datasets.columns import IMAGE, NUMBER, OTHER, TEXT, Column, image_column
from hfc.errors import ImageError, missing_extra
from hfc.regions import leaves_root

ENDING = ".parquet"
PLACE = re.compile(r"(.+\.parquet)/(\d+)", re.IGNORECASE | re.DOTALL)
PIECE = 8 << 20  # bytes that are read at once, about
KEPT = 256 << 20  # bytes of pieces that stay in memory
BUFFER = 1 << 20  # bytes: a column is read in parts, however long its row group
OPEN = 64  # files that stay open

_opening = threading.Lock()


class ParquetFile:
    """A Parquet file with its schema. Any number of threads reads its rows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        open_file = _pyarrow().parquet.ParquetFile
        self._file = open_file(file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)
        self.columns = _columns(self._file.schema_arrow)
        metadata = self._file.metadata
        self._groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self._starts: list[int] = [0, *accumulate(group.num_rows for group in self._groups)]
        self._lock = threading.Lock()
        self._cursor: tuple[int, int, Iterator[Any]] = -1, 0, iter(())
        """Row group and number of the piece that comes next, and where it comes from."""

    def __len__(self) -> int:
        return self._starts[-1]

    @functools.cached_property
    def image(self) -> str:
        """The name of the column of images.

        Raises:
            ImageError: there is none, or it is not clear which.
        """
        return image_column(str(self.file), self.columns).name

    def values(self, column: str) -> list[str | int | None]:
        """Read a column of texts or whole numbers.

        Raises:
            ImageError: it is damaged.
        """
        try:
            values: list[str | int | None] = self._file.read([column], use_threads=False)[column].to_pylist()
        except MemoryError:
            raise
        except (_pyarrow().ArrowException, OSError, KeyError, ValueError) as error:
            raise ImageError(f"{self.file}: the column {column} cannot be read: {_line(error)}") from error
        return values

    def read(self, row: int) -> bytes:
        """Read the image of a row.

        Raises:
            ImageError: there is none, it lies outside the file's folder, or the file is damaged.
            OSError: it is a file of its own, which cannot be read.
        """
        if row >= len(self):
            raise ImageError(f"{self.file.name} has no row {row}; it has {len(self)}, counted from 0")
        cell = self._cell(row)
        content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if content is None and path:
            return self._beside(str(path))
        if content is None:
            raise ImageError("no image: the cell is empty")
        if len(content) > LARGEST:
            raise ImageError(f"{len(content)} bytes, more than {LARGEST} in a Parquet file")
        return bytes(content)

    def keeps(self, row: int) -> bool:
        """Return whether the image of a row is surely in this file, without reading it."""
        if row >= len(self):
            return False
        group = self._groups[bisect_right(self._starts, row) - 1]
        columns = (group.column(number) for number in range(group.num_columns))
        contents = [column for column in columns if column.path_in_schema in (self.image, f"{self.image}.bytes")]
        counts = [column.statistics.null_count if column.statistics else None for column in contents]
        return counts == [0]

    def _beside(self, path: str) -> bytes:
        """Read an image of which the file has the path alone."""
        if "://" in path or leaves_root(path):
            raise ImageError(f"its path leaves the folder of the Parquet file: {path!r}; write the image into the file")
        return self.file.parent.joinpath(path).read_bytes()

    def _cell(self, row: int) -> Any:
        """Return the cell of a row in the column of images."""
        group = bisect_right(self._starts, row) - 1
        rows = self._groups[group].num_rows
        length = min(max(PIECE * rows // max(self._groups[group].total_byte_size, 1), 1), rows)
        number, place = divmod(row - self._starts[group], length)
        piece = _pieces.get((self, group, number))
        if piece is None:
            with self._lock:  # neighbours want the same piece: one thread reads it
                piece = _pieces.get((self, group, number))
                piece = self._advance(group, number, length) if piece is None else piece
        return piece[place].as_py()

    def _advance(self, group: int, number: int, length: int) -> Any:
        """Read on to a piece. Those before it in its row group are kept too, as they had to be read."""
        before, following, batches = self._cursor
        if before != group or following > number:
            following = 0
            batches = self._file.iter_batches(length, row_groups=[group], columns=[self.image], use_threads=False)
        self._cursor = -1, 0, batches  # in case that the file is damaged
        for reached in range(following, number + 1):
            piece = self._next_piece(batches, min(length, self._groups[group].num_rows - reached * length))
            _pieces.put((self, group, reached), piece)
        self._cursor = group, number + 1, batches
        return piece

    def _next_piece(self, batches: Iterator[Any], rows: int) -> Any:
        """Read some rows. They come in several batches where one cannot hold so many bytes."""
        parts: list[Any] = []
        try:
            while sum(map(len, parts)) < rows:
                parts.append(next(batches).column(0))
        except MemoryError:
            raise
        except (_pyarrow().ArrowException, OSError, ValueError, StopIteration) as error:
            raise ImageError(f"damaged Parquet file: {_line(error)}") from error
        return _pyarrow().chunked_array(parts)


class _Pieces:
    """The pieces of all files that were used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: OrderedDict[tuple[ParquetFile, int, int], Any] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[ParquetFile, int, int]) -> Any:
        """Return a piece; None if it is not there."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
            return self._pieces.get(key)

    def put(self, key: tuple[ParquetFile, int, int], piece: Any) -> None:
        """Keep a piece, and drop the oldest where there are too many bytes."""
        with self._lock:
            self._bytes -= self._pieces.pop(key).nbytes if key in self._pieces else 0
            self._pieces[key] = piece
            self._bytes += piece.nbytes
            while self._bytes > KEPT and len(self._pieces) > 1:
                self._bytes -= self._pieces.popitem(last=False)[1].nbytes


_pieces = _Pieces()


def split_row(path: Path) -> tuple[Path, int] | None:
    """Part a path into a Parquet file and the number of a row. None: it leads into no Parquet file."""
    place = PLACE.fullmatch(path.as_posix())
    return (Path(place[1]), int(place[2])) if place and Path(place[1]).is_file() else None


def open_parquet(file: Path) -> ParquetFile:
    """Open a Parquet file. Its schema is read once, and again where the file has changed.

    Raises:
        ImageError: it is damaged, encrypted, or no Parquet file.
        ConfigError: pyarrow is not installed.
        OSError: it cannot be read.
    """
    state = file.stat()
    with _opening:
        opened = _opened(file, state.st_size, state.st_mtime_ns)
    if isinstance(opened, str):
        raise ImageError(opened)
    return opened


@functools.lru_cache(maxsize=OPEN)
def _opened(file: Path, size: int, changed: int) -> ParquetFile | str:
    """Open a Parquet file, or return why it cannot be read: every row of a damaged one asks."""
    file.open("rb").close()  # what the system refuses has another reason
    try:
        return ParquetFile(file)
    except MemoryError:
        raise
    except (_pyarrow().ArrowException, OSError, ValueError) as error:
        remedy = "write it without encryption" if "ncrypt" in str(error) else "download or write it again"
        return f"{file}: cannot be read as a Parquet file: {_line(error)}; {remedy}"


def _pyarrow() -> Any:
    """Import pyarrow, which is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("Parquet files", "pyarrow", "parquet") from error
    return pyarrow


def _columns(schema: Any) -> tuple[Column, ...]:
    """Describe the columns of a file."""
    features = _features(schema.metadata)
    columns = []
    for field in schema:
        feature = features.get(field.name, {})
        names = feature.get("names")
        classes = tuple(map(str, names)) if isinstance(names, list) else ()
        columns.append(Column(field.name, _kind(field.type), str(field.type), str(feature.get("_type", "")), classes))
    return tuple(columns)


def _kind(kind: Any) -> str:
    """Return which kind of column a type makes."""
    types = _pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    elif types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field(kind.get_field_index("bytes")).type
        return IMAGE if _kind(kind) == IMAGE else OTHER
    if types.is_binary(kind) or types.is_large_binary(kind) or str(kind) == "binary_view":
        return IMAGE
    if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
        return TEXT
    return NUMBER if types.is_integer(kind) else OTHER


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, object]]:
    """Read what the library `datasets` notes in a schema of each column. Whatever is odd there does not count."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or "it ends too early"
