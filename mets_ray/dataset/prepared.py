"""A prepared data set as a value: its URI, its card, and everything that is read from it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from mets_ray.dataset.card import INDEX_COLUMNS, DatasetCard, Shard, read_card
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import Block, RowGroup, block_order
from mets_ray.dataset.planned_rows import Read
from mets_ray.dataset.shard_reader import RowGroupReader, open_shard, read_shard, signals
from mets_ray.errors import DatasetError
from mets_ray.text.reports import apply_template, text_id

_SHARDS_IN_FLIGHT = 32


@dataclass(frozen=True)
class DatasetIndex:
    """Fold and patient of every record, per row group: enough to select records without reading a signal."""

    groups: tuple[tuple[str, int], ...]
    folds: tuple[np.ndarray, ...]
    patients: tuple[list[str], ...]


@dataclass(frozen=True)
class PreparedDataset:
    """A finished data set: its `uri` and its `card`. It holds nothing else, except the index after its first use.

    Ray tasks receive the URI and the card; the index stays in the process that read it.
    """

    uri: str
    card: DatasetCard

    @classmethod
    def open(cls, uri: str) -> "PreparedDataset":
        """Raises DatasetError if there is no card (an unfinished or unrelated folder) or its schema differs."""
        return cls(uri, read_card(uri))

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedDataset, (self.uri, self.card)

    @cached_property
    def index(self) -> DatasetIndex:
        """Read from two small columns of all shards in parallel, on first use."""

        def read(shard: Shard) -> pa.Table:
            return open_shard(self.uri, shard).read(columns=list(INDEX_COLUMNS))

        with ThreadPoolExecutor(_SHARDS_IN_FLIGHT) as pool:
            tables = list(pool.map(read, self.card.shards))
        groups, folds, patients = [], [], []
        for shard, table in zip(self.card.shards, tables, strict=True):
            if table.num_rows != sum(shard.row_group_rows):
                raise DatasetError(
                    f"`{shard.path}` holds {table.num_rows} records, the card says {sum(shard.row_group_rows)}",
                    where=self.uri,
                    hint="prepare the data set again",
                )
            start = 0
            for number, rows in enumerate(shard.row_group_rows):
                part = table.slice(start, rows)
                groups.append((shard.path, number))
                folds.append(part["fold"].to_numpy())
                patients.append(part["patient_id"].to_pylist())
                start += rows
        return DatasetIndex(tuple(groups), tuple(folds), tuple(patients))

    @cached_property
    def shards(self) -> dict[str, Shard]:
        """The card's shards by path."""
        return {shard.path: shard for shard in self.card.shards}

    @property
    def all_folds(self) -> Selection:
        """Every record."""
        return Selection(tuple(self.card.folds))

    def row_groups(self, selection: Selection) -> list[RowGroup]:
        """Row groups that hold selected records, with the number of these records."""
        index = self.index
        counted = (
            RowGroup(path, number, int(selection.mask(fold, patients).sum()))
            for (path, number), fold, patients in zip(index.groups, index.folds, index.patients, strict=True)
        )
        return [group for group in counted if group.rows]

    def patients_of(self, selection: Selection) -> set[str]:
        """The patients of all selected records."""
        return {
            patient
            for fold, patients in zip(self.index.folds, self.index.patients, strict=True)
            for patient, selected in zip(patients, selection.mask(fold, patients), strict=True)
            if selected
        }

    def check_patients(self, first: Selection, second: Selection, *, names: tuple[str, str]) -> None:
        """Raise DatasetError if a patient has records in both selections, which would leak patients between splits.

        names: of the two selections, for the error.
        """
        shared = sorted(self.patients_of(first) & self.patients_of(second))
        if shared:
            raise DatasetError(
                f"{len(shared)} patients have records in the {names[0]} and in the {names[1]} folds, "
                f"for example `{shared[0]}`",
                hint="give all records of a patient the same fold, or exclude one of the folds",
            )

    def read(self, group: RowGroup, selection: Selection) -> pa.Table:
        """Selected rows of one row group in stored order, for scoring.

        Columns: `record_id`, `report`, `labels` (lists of codes), `age`, `sex`, `signal_uv` [lead, sample],
        `patient_id`, `fold`.
        """
        columns = ["record_id", "report", "labels", "age", "sex", "signal_uv"]
        reader = RowGroupReader(self.uri, self.shards, columns, selection)
        rows, selected = reader.read(group.path, group.index)
        return rows if len(selected) == len(rows) else rows.take(pa.array(selected))

    def read_rows(self, read: Read, selection: Selection, template: str | None) -> dict[str, np.ndarray]:
        """The rows of a planned read in its order, for training.

        Columns: `position` [row] as in `planned_rows`, `record_id` [row], `signal_uv` int16 [row, lead, sample] and
        `text_id` int64 [row], of the report formatted with `template`; 0 without one. Raises DatasetError for a data
        set without reports.
        """
        reader = RowGroupReader(self.uri, self.shards, ["record_id", "signal_uv", "report"], selection)
        signal_uv = np.empty((read.rows, len(self.card.leads), self.card.signal.num_samples), dtype=np.int16)
        starts = list(accumulate((piece.rows for piece in read.pieces), initial=0))
        small: dict[int, pa.Table] = {}
        # By row group and not by lane: lanes that begin and end in the same one share its decoding.
        by_row_group: dict[tuple[str, int], list[int]] = {}
        for number, piece in enumerate(read.pieces):
            by_row_group.setdefault((piece.path, piece.row_group), []).append(number)
        for (path, row_group), numbers in by_row_group.items():
            rows, selected = reader.read(path, row_group)
            for number in numbers:
                chosen = selected[read.pieces[number].start : read.pieces[number].stop]
                # Straight to where they stay: filtering the table would make another copy of the signals.
                place = signal_uv[starts[number] : starts[number + 1]]
                np.take(signals(rows), chosen, axis=0, out=place, mode="clip")
                small[number] = rows.select(["record_id", "report"]).take(pa.array(chosen))
        joined = pa.concat_tables(small[number] for number in range(len(read.pieces)))
        ids = [0] * read.rows
        if template is not None:
            ids = [text_id(apply_template(template, report)) for report in self._reports(joined)]
        return {
            "position": np.arange(read.first, read.first + read.rows),
            "record_id": np.asarray(joined["record_id"].to_pylist(), dtype=object),
            "signal_uv": signal_uv,
            "text_id": np.asarray(ids, dtype=np.int64),
        }

    def read_texts(self, block: Block, selection: Selection, template: str) -> dict[str, np.ndarray]:
        """The texts of a planned block in step order, without signals, for a language model in the training stream.

        Columns: `step` [row], `text` [row], the report formatted with `template`. Raises as `read_rows`.
        """
        reader = RowGroupReader(self.uri, self.shards, ["report"], selection)
        pieces = []
        for piece in (piece for lane in block.lanes for piece in lane.pieces):
            rows, selected = reader.read(piece.path, piece.row_group)
            pieces.append(rows.take(pa.array(selected[piece.start : piece.stop])))
        reports = self._reports(pa.concat_tables(pieces).take(pa.array(block_order(block))))
        return {
            "step": np.repeat(np.arange(block.first_step, block.first_step + block.steps), block.rows_per_step),
            "text": np.asarray([apply_template(template, report) for report in reports], dtype=object),
        }

    def distinct_reports(self, selection: Selection) -> Iterator[list[str]]:
        """The distinct selected reports of each shard; no signal is read.

        Raises DatasetError for a data set without reports.
        """
        for rows in self._of_shards(["report"], selection):
            yield self._reports(rows.group_by("report").aggregate([]))

    def reports_of_patients(self, selection: Selection) -> Iterator[tuple[list[str], list[str]]]:
        """(report, patient) of the selected records of each shard, each pair once. Errors as in `distinct_reports`."""
        for rows in self._of_shards(["report"], selection):
            pairs = rows.group_by(["report", "patient_id"]).aggregate([])
            yield self._reports(pairs), pairs["patient_id"].to_pylist()

    def distinct_statements(self, selection: Selection) -> Iterator[dict[str, list[str]]]:
        """The statements of each selected report of each shard; no signal is read. Errors as in `distinct_reports`."""
        for rows in self._of_shards(["report", "statements"], selection):
            pairs = zip(self._reports(rows), rows["statements"].to_pylist(), strict=True)
            yield dict(sorted(pairs, reverse=True))  # if a report has several lists, always keep the same one

    def _of_shards(self, columns: Sequence[str], selection: Selection) -> Iterator[pa.Table]:
        """Small columns of the selected rows of each shard in order, read in parallel."""
        with ThreadPoolExecutor(_SHARDS_IN_FLIGHT) as pool:
            yield from pool.map(lambda shard: read_shard(self.uri, shard, columns, selection), self.card.shards)

    def _reports(self, rows: pa.Table) -> list[str]:
        reports: list[str] = rows["report"].to_pylist()
        if "" in reports:  # `clean_report` rejects empty reports, so the source has none
            raise DatasetError(
                f"`{self.uri}` has no reports to train with: it was prepared for evaluation",
                hint="pretrain on a data set with reports, and use this one with jobs/evaluate.py",
            )
        return reports
