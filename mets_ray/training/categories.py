"""What training adds to the statements of a report: the kinds of finding that they are."""

from collections.abc import Mapping, Sequence

from mets_ray.ecg.measured_statements import MEASURED
from mets_ray.text.categories import categories_of
from mets_ray.text.statements import spellings

_MEASURED = frozenset(statement.casefold() for statement in MEASURED)


def with_categories(of_reports: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The same reports with the kinds of their statements, spelt as the reports spell them.

    A report without statements is its own statement, as in `ReportStatements.build`. Measured statements are of no
    kind: that a T wave is flat is measured on every ECG, and only where nothing else explains it does a report call it
    a change of ST and T.
    """
    known = spellings(of_reports)
    return {report: _with_own(parts or (report,), known) for report, parts in of_reports.items()}


def _with_own(statements: Sequence[str], known: Mapping[str, str]) -> tuple[str, ...]:
    found = categories_of([one for one in statements if one.casefold() not in _MEASURED])
    spelt = [known.get(name.casefold(), name) for name in found]
    return (*statements, *(name for name in spelt if name not in statements))
