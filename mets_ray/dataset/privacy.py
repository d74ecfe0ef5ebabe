"""What a data set says about people: identifying text and ids, as `prepare.deidentify` and `.pseudonymise` want it."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mets_ray import storage
from mets_ray.console import counted
from mets_ray.dataset.pseudonyms import Pseudonyms
from mets_ray.errors import RecordError
from mets_ray.sources.manifest import ManifestRow
from mets_ray.text.deidentify import contexts, mask, mask_statements, rules_version

Policy = Literal["keep", "mask", "refuse"]

SAMPLE_NAME = "identifying.csv"
"""Beside the card: some of the finds, for a person to check."""

_DONE: dict[Policy, str] = {"keep": "kept", "mask": "masked", "refuse": "refused"}
_SHORTEST_NAME = 3  # of a file: shorter ones are also words of a message


@dataclass(frozen=True)
class Finds:
    """What was found in one record's texts: how many of each kind, and each with the (masked) words around it."""

    counts: dict[str, int] = field(default_factory=dict)
    contexts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Privacy:
    """How identifying text and ids are treated. Picklable: workers apply it, since files may say who a patient is."""

    policy: Policy = "mask"
    pseudonyms: Pseudonyms | None = None

    @classmethod
    def of(cls, policy: Policy, *, pseudonymise: bool) -> "Privacy":
        """Raises ConfigError for pseudonyms without a key."""
        return cls(policy, Pseudonyms.from_environment() if pseudonymise else None)

    def of_text(self, row: ManifestRow) -> tuple[ManifestRow, Finds]:
        """The row with its report and statements as the policy wants them, and what was found there.

        Raises RecordError `identifying_text` where something was found and the policy is to refuse.
        """
        report = mask(row.report)
        statements, counts = mask_statements(row.statements)
        if not report.counts and not counts:
            return row, Finds()
        # Statements are parts of the report: what both hold is one find.
        counts = {kind: max(report.counts.get(kind, 0), counts.get(kind, 0)) for kind in report.counts | counts}
        if self.policy == "refuse":
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            raise RecordError(
                "identifying_text",
                f"the report may say who the patient or a doctor is ({kinds})",
                hint="remove it from the source, or set prepare.deidentify=mask",
            )
        found = Finds(counts, tuple(contexts(report.text) if report.counts else contexts("\n".join(statements))))
        return (row if self.policy == "keep" else replace(row, report=report.text, statements=statements)), found

    def of_ids(self, row: ManifestRow) -> ManifestRow:
        """The row under its pseudonyms. Its fold stays: it was chosen by the patient's own id."""
        if self.pseudonyms is None:
            return row
        return replace(
            row,
            record_id=self.pseudonyms.of("record", row.record_id),
            patient_id=self.pseudonyms.of("patient", row.patient_id),
            record_uri=self.pseudonyms.of("record", row.record_uri),
            recorded_at=None,
        )

    def of_time(self, recorded_at: str | None) -> str | None:
        """When an ECG was recorded; None under pseudonyms, because the day leads to the person."""
        return None if self.pseudonyms is not None else recorded_at

    def of_rejected(self, row: ManifestRow, error: RecordError) -> dict[str, Any]:
        """A row of `rejected/`. The message of `error` may name files, and those may be called after a record."""
        kept = self.of_ids(row)
        detail, hint = error.fact, error.hint
        if self.pseudonyms is not None:
            names = [row.record_uri, row.record_id, row.patient_id]
            detail, hint = (_without(words, names) for words in (detail, hint))
        if self.pseudonyms is not None or self.policy != "keep":
            detail, hint = mask(detail).text, mask(hint).text
        return {
            "record_id": kept.record_id,
            "record_uri": kept.record_uri,
            "reason": error.reason,
            "detail": detail,
            "report": row.report if self.policy == "keep" else mask(row.report).text,
            "hint": hint,
        }

    def facts(self, rows: Iterable[ManifestRow]) -> dict[str, Any]:
        """What the data set's fingerprint says of it: nothing where nothing is changed, as in older fingerprints."""
        facts: dict[str, Any] = {}
        if self.policy != "keep" and _changes_any(rows):
            facts |= {"deidentify": self.policy, "identifier_rules": rules_version()}
        if self.pseudonyms is not None:
            facts["pseudonyms"] = self.pseudonyms.key_id
        return facts


def note_of_finds(records: dict[str, int], policy: Policy) -> tuple[str, ...]:
    """For the card: in how many records each kind was found."""
    if not records:
        return ()
    found = ", ".join(f"{kind} in {counted(count, 'record')}" for kind, count in records.items())
    return (f"identifying text, found by rules and {_DONE[policy]}: {found}; see {SAMPLE_NAME}",)


def write_sample(dataset_uri: str, found: Sequence[tuple[str, str, str]]) -> None:
    """Write finds as kind, `record_id` and the words around: masked, so that the file says no more than the shards."""
    if not found:
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("kind", "record_id", "words_around"), *found])
    storage.write_bytes(storage.join(dataset_uri, SAMPLE_NAME), text.getvalue().encode())


def _changes_any(rows: Iterable[ManifestRow]) -> bool:
    """Whether a text holds something to mask, or is known only to the record's own file."""
    seen: set[str] = set()
    for row in rows:
        if "report" in row.from_file:
            return True
        for text in (row.report, *row.statements):
            if text not in seen and mask(text).counts:
                return True
            seen.add(text)
    return False


def _without(detail: str, names: list[str]) -> str:
    """A message without ids: neither whole, nor as the name of a file or folder."""
    parts = {part for name in names for part in (name, *name.split("/"), name.rpartition("/")[2].partition(".")[0])}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_NAME:
            detail = detail.replace(part, "[id]")
    return detail
