"""PTB-XL in its official layout, with its own reports, reports rendered from the 12SL statements of PTB-XL+, or both.

PTB-XL 1.0.3: Wagner et al. 2020, doi:10.1038/s41597-020-0495-6, https://physionet.org/content/ptb-xl/1.0.3/.
PTB-XL+: Strodthoff et al. 2023, doi:10.1038/s41597-023-02153-8, https://physionet.org/content/ptb-xl-plus/1.0.1/.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.console import progress_over
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import ConfigError, RecordError
from mets_ray.sources.cells import (
    Blanks,
    age_years,
    identifier,
    literal,
    number,
    recorded_at,
    sex,
    unreadable,
    whole_number,
)
from mets_ray.sources.csv_table import read_table, sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.sources.source import Source
from mets_ray.sources.statements_12sl import Statements12SL, read_statements
from mets_ray.text.reports import clean_report, sentences
from mets_ray.text.translate import ENGLISH, PhraseTable, Translation

_SEXES = {"0": "male", "1": "female"}  # as PTB-XL's page says
_HIDDEN_AGE = 300.0  # "ages above 89 are set to 300", for privacy
_OLDEST_AGE = 90.0


def ptbxl_manifest(
    source_uri: str,
    *,
    records: Literal[100, 500],
    report_source: Literal["report", "12sl", "both"],
    statements_uri: str | None,
) -> Manifest:
    """Rows of `ptbxl_database.csv` in `source_uri`, in its order.

    `records` selects the 100 Hz or the 500 Hz files. `report_source` is `report` (PTB-XL's own, raw; its statements are
    the sentences of an English report, or what `translate` knows of a German or Swedish one), `12sl` (rendered from
    `12sl_statements.csv` in `statements_uri`, the `labels` folder of PTB-XL+; an ECG without a row there has an empty
    report), or `both`: the rendered report followed by PTB-XL's own if that describes a finding, with the statements of
    both. `labels` are all keys of `scp_codes`, whatever their likelihood. Age 300, which means "above 89", becomes 90.
    `fold` is `strat_fold`, `patient_id` and `site` are written without PTB-XL's `.0`. An age or sex that cannot be read
    is unknown; a row with another cell that cannot be read is rejected.

    Raises ConfigError for 12sl and both without `statements_uri`, DatasetError for a table that cannot be read.
    """
    if report_source != "report" and statements_uri is None:
        raise ConfigError(
            f"`prepare.source.report` is {report_source} and `prepare.source.statements_uri` is not set",
            hint="set prepare.source.statements_uri to the `labels` folder of PTB-XL+",
        )
    column = "filename_lr" if records == 100 else "filename_hr"
    database_uri = storage.join(source_uri, "ptbxl_database.csv")
    table = read_table(
        database_uri, ("ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold", column)
    )
    lines, rendered = tuple(table.rows), None
    if report_source != "report" and statements_uri:
        ids = (identifier(cells["ecg_id"]) for _, cells in lines)
        rendered = read_statements(statements_uri, {int(ecg_id) for ecg_id in ids if ecg_id.isdecimal()})
    phrases = PhraseTable.load() if report_source != "12sl" else None
    described = functools.cache(_described)  # a third of all reports is another's too
    in_english = functools.cache(functools.partial(_in_english, phrases=phrases)) if phrases else None
    blanks = Blanks()
    rows, translations = [], []
    for line, cells in progress_over(lines, total=len(lines), unit="record", description="manifest"):
        report = ""
        statements: tuple[str, ...] = ()
        if rendered:
            ecg_id = identifier(cells["ecg_id"])
            statements = rendered.statements.get(int(ecg_id), ()) if ecg_id.isdecimal() else ()
            report = ". ".join(statements)
        if in_english:
            own = described(cells["report"])
            translation = in_english(own)
            translations.append(translation)
            statements = tuple(dict.fromkeys((*statements, *translation.statements)))
            report = f"{report}. {own}" if report and own else report or cells["report"]
        row = _row(cells, f"line {line}", column, blanks)
        row |= {"record_uri": storage.join(source_uri, row["record_uri"]), "report": report, "statements": statements}
        rows.append(ManifestRow(**row))
    files = (table.data, *(rendered.files if rendered else ()), *(phrases.files if phrases else ()))
    notes = (*_notes(rows, rendered, translations), *blanks.notes())
    return Manifest(tuple(rows), "ptbxl", sha256_of(*files), notes)


@functools.lru_cache(maxsize=4096)
def _labels(scp_codes: str) -> tuple[str, ...]:
    return tuple(str(code) for code in literal(scp_codes, "scp_codes", dict))


def _row(cells: dict[str, str], line: str, file_column: str, blanks: Blanks) -> dict[str, Any]:
    """All fields but the report; the URI is the path below the source."""
    fault, fold, labels = None, 0, tuple[str, ...]()
    try:
        for column in ("ecg_id", "patient_id", file_column):
            if not cells[column]:
                raise unreadable(column, "")
        fold = whole_number(cells["strat_fold"], "strat_fold")
        labels = _labels(cells["scp_codes"])
    except RecordError as error:
        fault = (error.reason, f"{error.fact} in {line}")
    is_hidden = number(cells["age"]) == _HIDDEN_AGE
    return {
        "record_id": identifier(cells["ecg_id"]) or line,
        "patient_id": identifier(cells["patient_id"]) or line,
        "fold": fold,
        "record_uri": cells[file_column].strip(),
        "labels": labels,
        "age": _OLDEST_AGE if is_hidden else age_years(cells["age"], blanks),
        "sex": sex(cells["sex"], blanks, _SEXES),
        "fault": fault,
        "device": " ".join(cells.get("device", "").split()) or None,
        "site": identifier(cells.get("site", "")) or None,
        "recorded_at": recorded_at(cells.get("recording_date", ""), blanks),
    }


def _described(report: str) -> str:
    """The cleaned report; empty if it describes no finding."""
    try:
        return clean_report(report)
    except RecordError:
        return ""


def _in_english(report: str, phrases: PhraseTable) -> Translation:
    """The statements of a cleaned report: its sentences if English, otherwise what the phrase tables know of it."""
    if not report:
        return Translation(ENGLISH, ())
    translation = phrases.translate(report)
    if translation.language == ENGLISH:
        return replace(translation, statements=sentences(report) if translation.statements else ())
    return translation


def _notes(
    rows: list[ManifestRow], rendered: Statements12SL | None, translations: list[Translation]
) -> tuple[str, ...]:
    notes = []
    foreign = [one for one in translations if one.language != ENGLISH]
    if foreign:
        words, unknown = sum(one.words for one in foreign), sum(one.unknown_words for one in foreign)
        notes.append(
            f"{len(foreign)} reports are not English; their statements come from the phrase tables, which know "
            f"{1 - unknown / words:.1%} of their {words} words; {sum(bool(one.unknown) for one in foreign)} reports "
            "contain a word that no table knows, which is only in `report`"
        )
    old = sum(row.age == _OLDEST_AGE for row in rows)
    if old:
        notes.append(f"{old} patients above 89 years, whose age PTB-XL hides, are written as {_OLDEST_AGE:g}")
    if rendered and rendered.unreadable:
        notes.append(
            f"{rendered.unreadable} rows of 12sl_statements.csv cannot be read: their ECGs count as without one"
        )
    if rendered:
        absent = sum(not row.report for row in rows)
        if absent:
            what = " and no report of their own" if translations else ", so their report is empty"
            notes.append(f"{absent} records have no 12SL statements{what}")
        ids = {row.record_id for row in rows}
        for token, ecg_ids in sorted(rendered.unlisted.items()):
            count = sum(str(ecg_id) in ids for ecg_id in ecg_ids)
            if count:
                notes.append(
                    f"12SL token {token} has no row in the mapping; read as `{rendered.text(token)}` {count} times"
                )
    return tuple(notes)


class PtbXl(Source):
    """PTB-XL in its official layout, with reports from PTB-XL itself, from PTB-XL+, or both."""

    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Wagner et al. 2020, PTB-XL 1.0.3, doi:10.1038/s41597-020-0495-6; "
        "Strodthoff et al. 2023, PTB-XL+ 1.0.1, doi:10.1038/s41597-023-02153-8"
    )
    needs: ClassVar[dict[str, str]] = {"uri": "name the folder that holds ptbxl_database.csv"}
    uri: Uri | None = Field(None, description="folder of ptbxl_database.csv (local, s3://, gs://, az://)")
    records: Literal[100, 500] = Field(100, description="which files to read: 100 or 500 Hz")
    report: Literal["report", "12sl", "both"] = Field(
        "report",
        description="the `report` column, text rendered from the 12SL statements of PTB-XL+, or both as one report",
    )
    statements_uri: Uri | None = Field(None, description="for 12sl and both: the `labels` folder of PTB-XL+")

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.report != "report" and self.statements_uri is None:
            yield (
                f"`prepare.source.report` is {self.report}, but `prepare.source.statements_uri` is not set",
                "name PTB-XL+'s `labels` folder",
            )

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        return ptbxl_manifest(
            self.root, records=self.records, report_source=self.report, statements_uri=self.statements_uri
        )
