"""CSV tables of a million rows, as Arrow batches of text: a few seconds, and no more memory than a batch.

`csv_table` names the line of every fault and is made for small tables: its rows are Python objects, all at once.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.sources.csv_table import check_columns

_BLOCK_BYTES = 8 * 1024**2


class ArrowTable:
    """The `columns` of a CSV in UTF-8, also of a `.csv.gz`; `sha256` is its content's hash once all batches are read.

    Raises DatasetError for a file that cannot be read, a missing column, and a row with another number of cells than
    the first line has names.
    """

    def __init__(self, uri: str, columns: Sequence[str]) -> None:
        self._uri = uri
        self._columns = tuple(columns)
        self._digest = hashlib.sha256()
        self._fault = ""

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[dict[str, pa.StringArray]]:
        """Batches: arrays of text by column, "" for an empty cell."""
        filesystem, path = storage.arrow_filesystem(self._uri)
        if not storage.exists(self._uri):
            raise storage.MissingFileError(f"`{self._uri}` does not exist")
        with filesystem.open_input_stream(path) as stream:  # decompresses by the file's name
            file = io.BufferedReader(_Hashed(stream, self._digest), buffer_size=_BLOCK_BYTES)
            names = self._header(file)
            try:
                for batch in self._open(file, names):
                    yield {name: batch.column(name) for name in self._columns}
                while file.read(_BLOCK_BYTES):
                    pass
            except (pa.ArrowException, OSError) as error:
                # Arrow's own message may quote a row, and with it a report.
                fault = self._fault or f"not a CSV in UTF-8 ({type(error).__name__})"
                raise DatasetError(f"`{self._uri}` is {fault}") from None

    def _header(self, file: Any) -> list[str]:
        first = file.peek(_BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
        names = next(csv.reader([first.decode("utf-8", "replace").strip()]), [])
        check_columns(self._uri, tuple(names), self._columns)
        return names

    def _open(self, file: Any, names: list[str]) -> Any:
        return pyarrow.csv.open_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=self._note_fault),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(self._columns),
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )

    def _note_fault(self, row: pyarrow.csv.InvalidRow) -> str:
        self._fault = (
            f"no CSV: row {row.number} has {row.actual_columns} cells, the first line names {row.expected_columns}"
        )
        return "error"


class _Hashed(io.RawIOBase):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: pa.NativeFile, digest: Any) -> None:
        self._stream = stream
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)
