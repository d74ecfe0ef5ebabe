"""What training adds to the statements of a report: the kinds of finding that they are."""

from collections.abc import Mapping, Sequence

from mets_ray.ecg.measured_statements import MEASURED
from mets_ray.text.categories import categories_of
from mets_ray.text.statements import spellings

_MEASURED = frozenset(statement.casefold() for statement in MEASURED)


def kinds_said(of_reports: Mapping[str, Sequence[str]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """For each report, the kinds of its findings, spelt as the reports spell them, and its statements of each kind.

    A report without statements is its own statement, as in `ReportStatements.build`. Measured statements are of no
    kind: that a T wave is flat is measured on every ECG, and only where nothing else explains it does a report call it
    a change of ST and T.
    """
    known = spellings(of_reports)
    return {report: _of_kinds(parts or (report,), known) for report, parts in of_reports.items()}


def with_kinds(
    of_reports: Mapping[str, Sequence[str]], kinds: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, tuple[str, ...]]:
    """The same reports, which say their kinds too. kinds: of `kinds_said`."""
    said = {report: tuple(parts or (report,)) for report, parts in of_reports.items()}
    return {report: (*parts, *(kind for kind in kinds[report] if kind not in parts)) for report, parts in said.items()}


def _of_kinds(statements: Sequence[str], known: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found = [one for one in statements if one.casefold() not in _MEASURED]
    return {
        known.get(kind.casefold(), kind): tuple(one for one in found if kind in categories_of([one]))
        for kind in categories_of(found)
    }
