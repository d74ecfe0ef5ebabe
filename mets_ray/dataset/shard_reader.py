"""From shards to rows: the card, the light index of patients and folds, and the rows of a planned block."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16
from pydantic import ValidationError

from mets_ray import storage
from mets_ray.dataset.card import CARD_NAME, INDEX_COLUMNS, SCHEMA_VERSION, DatasetCard
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import Block, RowGroup, block_order
from mets_ray.errors import DatasetError
from mets_ray.text.reports import apply_template, text_id

_INDEX_READS_IN_FLIGHT = 32

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetIndex:
    """Fold and patient of every record, per row group: enough to choose records without reading a signal."""

    groups: tuple[tuple[str, int], ...]
    folds: tuple[np.ndarray, ...]
    patients: tuple[list[str], ...]

    def row_groups(self, selection: Selection) -> list[RowGroup]:
        """Row groups that hold selected records, with how many."""
        counted = (
            RowGroup(path, index, int(selection.mask(fold, patients).sum()))
            for (path, index), fold, patients in zip(self.groups, self.folds, self.patients, strict=True)
        )
        return [group for group in counted if group.rows]

    def patients_of(self, selection: Selection) -> set[str]:
        return {
            patient
            for fold, patients in zip(self.folds, self.patients, strict=True)
            for patient, selected in zip(patients, selection.mask(fold, patients), strict=True)
            if selected
        }


def read_card(dataset_uri: str) -> DatasetCard:
    """The card of a prepared data set.

    Raises DatasetError where there is none (an unfinished or foreign folder) or it has another schema.
    """
    uri = storage.join(dataset_uri, CARD_NAME)
    if not storage.exists(uri):
        raise DatasetError(
            f"`{dataset_uri}` holds no {CARD_NAME}, so it is no finished data set",
            hint="run jobs/prepare.py with this dataset_uri (it goes on where it stopped)",
        )
    data = storage.read_bytes(uri)
    try:
        card = DatasetCard.model_validate_json(data)
    except ValidationError as error:
        raise DatasetError(
            f"`{uri}` is not a card of schema version {SCHEMA_VERSION}: {error.error_count()} faults",
            hint="prepare the data set again with this version of mets_ray",
        ) from error
    if card.schema_version != SCHEMA_VERSION:
        raise DatasetError(
            f"`{uri}` has schema version {card.schema_version}, this mets_ray reads {SCHEMA_VERSION}",
            hint="prepare the data set again with this version of mets_ray",
        )
    return card


def read_index(dataset_uri: str, card: DatasetCard) -> DatasetIndex:
    """Fold and patient of every record, read from two light columns of all shards at the same time."""

    def read(path: str) -> pa.Table:
        return open_shard(dataset_uri, path).read(columns=list(INDEX_COLUMNS))

    with ThreadPoolExecutor(_INDEX_READS_IN_FLIGHT) as pool:
        tables = list(pool.map(read, [shard.path for shard in card.shards]))
    groups, folds, patients = [], [], []
    for shard, table in zip(card.shards, tables, strict=True):
        if table.num_rows != sum(shard.row_group_rows):
            raise DatasetError(
                f"`{shard.path}` holds {table.num_rows} records, the card says {sum(shard.row_group_rows)}",
                where=dataset_uri,
                hint="prepare the data set again",
            )
        start = 0
        for index, rows in enumerate(shard.row_group_rows):
            part = table.slice(start, rows)
            groups.append((shard.path, index))
            folds.append(part["fold"].to_numpy())
            patients.append(part["patient_id"].to_pylist())
            start += rows
    return DatasetIndex(tuple(groups), tuple(folds), tuple(patients))


def check_patients(index: DatasetIndex, first: Selection, second: Selection, *, names: tuple[str, str]) -> None:
    """Raise DatasetError where a patient has records on both sides: a model would be scored on whom it has seen."""
    shared = sorted(index.patients_of(first) & index.patients_of(second))
    if shared:
        raise DatasetError(
            f"{len(shared)} patients have records in the {names[0]} and in the {names[1]} folds, "
            f"for example `{shared[0]}`",
            hint="give all records of a patient the same fold, or leave one of the folds out",
        )


def read_block(
    block: Block, *, dataset_uri: str, selection: Selection, template: str, with_text: bool
) -> dict[str, np.ndarray]:
    """The rows of a planned block in step order.

    Columns: `step` [row], `record_id` [row], `signal_uv` int16 [row, lead, sample], `text_id` int64 [row] and, when
    `with_text`, `text` [row]: the report in its template.
    """
    readers = _Readers(dataset_uri, ["record_id", "signal_uv", "report", *INDEX_COLUMNS], selection)
    rows = pa.concat_tables(
        [
            readers.selected(piece.path, piece.row_group).slice(piece.start, piece.rows)
            for lane in block.lanes
            for piece in lane.pieces
        ]
    ).take(block_order(block))
    reports = _texts(rows, dataset_uri)
    texts = [apply_template(template, report) for report in reports]
    batch = {
        "step": np.repeat(np.arange(block.first_step, block.first_step + block.steps), block.rows_per_step),
        "record_id": np.asarray(rows["record_id"].to_pylist(), dtype=object),
        "signal_uv": signals(rows),
        "text_id": np.asarray([text_id(text) for text in texts], dtype=np.int64),
    }
    if with_text:
        batch["text"] = np.asarray(texts, dtype=object)
    return batch


def distinct_reports(path: str, *, dataset_uri: str, selection: Selection) -> list[str]:
    """Selected reports of one shard, each once, in a fixed order; no signal is read.

    Raises DatasetError for a data set without reports.
    """
    return sorted(set(_texts(_selected_columns(path, ["report"], dataset_uri, selection), dataset_uri)))


def distinct_statements(path: str, *, dataset_uri: str, selection: Selection) -> dict[str, list[str]]:
    """The statements of each selected report of one shard; no signal is read. Errors as in `distinct_reports`."""
    chosen = _selected_columns(path, ["report", "statements"], dataset_uri, selection)
    pairs = zip(_texts(chosen, dataset_uri), chosen["statements"].to_pylist(), strict=True)
    return dict(sorted(pairs, reverse=True))  # of several lists, always the same one


def read_records(group: RowGroup, *, dataset_uri: str, selection: Selection) -> pa.Table:
    """Selected rows of one row group in stored order, for scoring.

    Columns: `record_id`, `patient_id`, `fold`, `report`, `labels` (lists of codes), `signal_uv` [lead, sample].
    """
    columns = ["record_id", "patient_id", "fold", "report", "labels", "signal_uv"]
    return _Readers(dataset_uri, columns, selection).selected(group.path, group.index)


def signals(rows: pa.Table) -> Int16[np.ndarray, "row lead sample"]:
    """The column `signal_uv` of a table as one array."""
    array: np.ndarray = rows["signal_uv"].combine_chunks().to_numpy_ndarray()
    return array


def read_ahead(items: Iterator[T], readers: Executor) -> Iterator[T]:
    """The same items, the next one always being read in a thread; reading begins now, not at the first `next`."""

    def following(coming: "Future[T | None]") -> Iterator[T]:
        while (item := coming.result()) is not None:
            coming = readers.submit(next, items, None)
            yield item

    return following(readers.submit(next, items, None))


def _selected_columns(path: str, columns: list[str], dataset_uri: str, selection: Selection) -> pa.Table:
    """Some columns of one shard's selected rows, beside those that choose them."""
    table = open_shard(dataset_uri, path).read(columns=[*columns, *INDEX_COLUMNS])
    mask = selection.mask(table["fold"].to_numpy(), table["patient_id"].to_pylist())
    return table.filter(pa.array(mask))


def _texts(rows: pa.Table, dataset_uri: str) -> list[str]:
    reports: list[str] = rows["report"].to_pylist()
    if "" in reports:  # `clean_report` lets no empty one through, so the source has none
        raise DatasetError(
            f"`{dataset_uri}` has no reports to train with: it was prepared for evaluation",
            hint="pretrain on a data set with reports, and give this one to jobs/evaluate.py",
        )
    return reports


class _Readers:
    """Each row group is read once for a block, however many lanes take rows of it."""

    def __init__(self, dataset_uri: str, columns: list[str], selection: Selection) -> None:
        self._dataset_uri = dataset_uri
        self._columns = columns
        self._selection = selection
        self._files: dict[str, pq.ParquetFile] = {}
        self._tables: dict[tuple[str, int], pa.Table] = {}

    def selected(self, path: str, row_group: int) -> pa.Table:
        key = (path, row_group)
        if key not in self._tables:
            if path not in self._files:
                self._files[path] = open_shard(self._dataset_uri, path)
            table = self._files[path].read_row_group(row_group, columns=self._columns)
            mask = self._selection.mask(table["fold"].to_numpy(), table["patient_id"].to_pylist())
            self._tables[key] = table if mask.all() else table.filter(pa.array(mask))
        return self._tables[key]


def open_shard(dataset_uri: str, path: str) -> pq.ParquetFile:
    """A shard to be read by row groups. Raises DatasetError where it is absent."""
    uri = storage.join(dataset_uri, path)
    if not storage.exists(uri):
        raise DatasetError(
            f"`{path}` stands in the card but not in `{dataset_uri}`",
            hint="prepare the data set again: finished shards are kept",
        )
    filesystem, file_path = storage.arrow_filesystem(uri)
    return pq.ParquetFile(filesystem.open_input_file(file_path), pre_buffer=True)
