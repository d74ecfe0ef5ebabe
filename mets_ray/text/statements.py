"""The statements that each report is made of, by the id of the report's text: an ECG's several positives."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mets_ray.errors import DatasetError
from mets_ray.text.reports import text_id


def one_spelling(statements: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The same lists, where statements that differ in case alone are spelt as in most reports.

    Otherwise "normal ecg" would be a negative of "Normal ECG", and an uncased LM gives both the same vector.
    """
    counts = Counter(part for parts in statements.values() for part in parts)
    spelling: dict[str, str] = {}
    for part, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        spelling.setdefault(part.casefold(), part)
    return {report: tuple(spelling[part.casefold()] for part in parts) for report, parts in statements.items()}


def spellings(statements: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """How lists of `one_spelling` spell each statement, by the case-folded one."""
    return {part.casefold(): part for parts in statements.values() for part in parts}


@dataclass(frozen=True)
class ReportStatements:
    """Report i, of the ascending `report_ids`, holds `statement_ids[starts[i] : starts[i + 1]]`, each once, ascending.

    Both kinds of id are `text_id`: of the report in its template, and of the bare statement.
    """

    report_ids: Int64[np.ndarray, "report"]
    starts: Int64[np.ndarray, "bound"]
    statement_ids: Int64[np.ndarray, "entry"]

    @classmethod
    def build(cls, statements: Mapping[str, Sequence[str]]) -> "ReportStatements":
        """From the statements of each report text. A report without any is its own statement."""
        id_of = functools.cache(text_id)  # reports are many, and share some thousand statements
        lists = {
            text_id(report): sorted({id_of(part) for part in parts or (report,)})
            for report, parts in statements.items()
        }
        order = sorted(lists)
        counts = [len(lists[report]) for report in order]
        return cls(
            np.asarray(order, dtype=np.int64),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            np.asarray([one for report in order for one in lists[report]], dtype=np.int64),
        )

    def most_frequent(self, limit: int) -> Int64[np.ndarray, "statement"]:
        """The ids of the `limit` most frequent statements, or all where there are fewer; ascending."""
        ids, counts = np.unique(self.statement_ids, return_counts=True)
        return np.sort(ids[np.argsort(-counts, kind="stable")[:limit]])

    def count_patients(
        self, report_ids: Int64[np.ndarray, "pair"], patients: Int64[np.ndarray, "pair"]
    ) -> dict[int, int]:
        """How many distinct patients have each statement in a report, by its id.

        report_ids, patients: which patient, by a number, has which report. Raises as `of`.
        """
        of_pair = self.of(report_ids)
        statements = np.concatenate([np.empty(0, dtype=np.int64), *of_pair])
        holders = np.repeat(patients, np.asarray([len(ids) for ids in of_pair], dtype=np.int64))
        ids, place = np.unique(statements, return_inverse=True)
        numbers = int(holders.max(initial=0)) + 1
        held = np.unique(place * numbers + holders)  # each pair of a statement and a patient once
        counts = np.bincount(held // numbers, minlength=len(ids))
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def holds(self, report_id: int) -> bool:
        """Whether `build` saw this report."""
        at = int(np.searchsorted(self.report_ids, report_id))
        return at < len(self.report_ids) and int(self.report_ids[at]) == report_id

    def of(self, report_ids: Int64[np.ndarray, "row"]) -> list[np.ndarray]:
        """The statement ids of each row. Raises DatasetError for a report that `build` did not see."""
        positions = np.searchsorted(self.report_ids, report_ids).clip(max=max(len(self.report_ids) - 1, 0))
        if len(self.report_ids) == 0 or not np.array_equal(self.report_ids[positions], report_ids):
            raise DatasetError(
                "a report in the stream has no statements: the data set changed under the run",
                hint="start the job again: its text stage reads what is missing",
            )
        return [self.statement_ids[self.starts[at] : self.starts[at + 1]] for at in positions]

    def entries(
        self, report_ids: Int64[np.ndarray, "row"], columns: Int64[np.ndarray, "column"]
    ) -> tuple[Int64[np.ndarray, "entry"], Int64[np.ndarray, "entry"]]:
        """(row, column) of each statement of a row's report that is among `columns`, ascending."""
        lists = self.of(report_ids)
        rows, ids = np.repeat(np.arange(len(lists)), [len(one) for one in lists]), np.concatenate(lists)
        at = np.searchsorted(columns, ids).clip(max=len(columns) - 1)
        among = columns[at] == ids
        return rows[among], at[among]

    def columns(self, report_ids: Int64[np.ndarray, "row"]) -> Int64[np.ndarray, "column"]:
        """The distinct statements of some reports, ascending: the columns of a batch's loss."""
        return np.unique(np.concatenate(self.of(report_ids)))

    def positives(
        self, report_ids: Int64[np.ndarray, "row"], columns: Int64[np.ndarray, "column"]
    ) -> Bool[np.ndarray, "row column"]:
        """Which statements of `columns`, ascending, each row's report holds."""
        found = np.zeros((len(report_ids), len(columns)), dtype=np.bool_)
        for row, ids in enumerate(self.of(report_ids)):
            found[row, np.searchsorted(columns, ids)] = True
        return found
