"""Records of the PhysioNet/CinC challenges 2020 and 2021: WFDB `.mat` and headers with diagnoses as SNOMED CT codes.

Perez Alday et al. 2020, doi:10.1088/1361-6579/abc960; Reyna et al. 2021, doi:10.22489/CinC.2021.109;
https://physionet.org/content/challenge-2021/1.0.3/ (CC BY 4.0). CPSC2018: Liu et al. 2018, doi:10.1166/jmihi.2018.2442.
There are no patient ids, so each record counts as a separate patient, and no reports; the words of the codes can stand
for one (`report=snomed`). The same headers are in Chapman-Shaoxing and Ningbo's own layout (Zheng et al. 2022,
https://physionet.org/content/ecg-arrhythmia/1.0.0/, CC BY 4.0): `WFDBRecords/01/010/JS00001.hea`, with the words of its
codes in `ConditionNames_SNOMED-CT.csv`.
"""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig, samples_in
from mets_ray.ecg.wfdb import HeaderFacts, comment_facts, read_header, read_wfdb
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.cells import Blanks, age_years, identifier, is_missing, sex
from mets_ray.sources.csn import ACRONYMS, published_classes
from mets_ray.sources.csv_table import sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow, fold_of
from mets_ray.sources.snomed import SnomedWords
from mets_ray.sources.source import Source
from mets_ray.text.reports import join_statements

Database = Literal["cpsc2018", "csn", "cinc2021", "any"]

SOURCE_OF: dict[Database, str] = {"cpsc2018": "cpsc2018", "csn": "csn", "cinc2021": "cinc2021", "any": "cinc"}
"""What cards call each."""

OF_CHALLENGES = frozenset(SOURCE_OF.values())
Stretch = Literal["start", "first_5s_padded", "windows"]

_NO_REPORTS = "no reports: for evaluation only"
_HEADERS_IN_FLIGHT = 32
_PUBLISHED_SAMPLES = 2500  # MERL: "only keep the first 2500 points as METS did", 5 s at 500 Hz
_URI = re.compile(r"(?P<record>.+)#cut:start=(?P<start>\d+)&samples=(?P<samples>\d+)&padded_to=(?P<padded>\d+)")


def cinc_manifest(
    source_uri: str, *, database: Database, stretch: Stretch, duration_s: float, words: SnomedWords | None = None
) -> Manifest:
    """A row for each header at any depth below `source_uri`, or for each of its windows; labels are its `Dx` codes.

    `database` selects the classes that evaluation scores; `csn` also gets `csn:<class>` labels as published (see
    `mets_ray.sources.csn`). `stretch`:

    - `start`: the first `duration_s`; shorter records are rejected as too short.
    - `first_5s_padded`: the first 2,500 samples, zero-padded to `duration_s`, as in MERL and later work on CPSC2018.
      They also min-max scale each record, which is not done here: µV stay µV.
    - `windows`: the whole record in evenly spaced windows of `duration_s`, each a row `<record>-w0`, `-w1`, … with the
      record as patient; a shorter record is one zero-padded window.

    With `words` the statements of a record are the words of its codes; a record without any has an empty report.

    A record with an unreadable header keeps its row, and is rejected with its reason when it is read.
    Raises DatasetError for a folder without headers.
    """
    uris = [uri.removesuffix(".hea") for uri in storage.list_files(source_uri, ".hea")]
    if not uris:
        raise DatasetError(
            f"`{source_uri}` holds no WFDB header", hint="set prepare.source.uri to a folder such as cpsc_2018"
        )
    with ThreadPoolExecutor(_HEADERS_IN_FLIGHT) as pool:
        headers = list(pool.map(_header, uris))
    rows: list[ManifestRow] = []
    blanks = Blanks()
    padded = 0
    for uri, header in zip(uris, headers, strict=True):
        cuts = _cuts(header, stretch, duration_s)
        padded += sum(padded_to > samples for _, samples, padded_to in cuts)
        about = _About.of(header, database, blanks, words)
        rows += _rows(uri, about, cuts, several=stretch == "windows")
    source = SOURCE_OF[database]
    files = [header.data for header in headers if header is not None]
    notes = _notes(headers, rows, database, stretch, padded, duration_s)
    notes = (*(words.notes(row.labels for row in rows) if words else (_NO_REPORTS,)), *notes, *blanks.notes())
    sha256 = sha256_of(*files, *(words.files if words else ()))
    return Manifest(tuple(rows), source, sha256, notes, has_reports=words is not None)


def read_cut(record_uri: str) -> Ecg:
    """The segment that `<record>#cut:start=0&samples=2500&padded_to=5000` names, zero-padded to `padded_to`.

    Raises RecordError as `read_wfdb`, DatasetError for any other URI.
    """
    match = _URI.fullmatch(record_uri)
    if match is None:
        raise DatasetError(
            f"`{record_uri}` is not a stretch of a record",
            hint="write <record>#cut:start=0&samples=2500&padded_to=5000",
        )
    ecg = read_wfdb(match["record"])
    start, samples, padded_to = (int(match[name]) for name in ("start", "samples", "padded"))
    if padded_to == samples:  # one more second, for the length of the resampling filter
        end = start + samples + round(ecg.sampling_rate_hz)
        return replace(ecg, signal_mv=ecg.signal_mv[:, start:end])
    signal_mv = ecg.signal_mv[:, start : start + samples]
    zeros = np.zeros((signal_mv.shape[0], padded_to - signal_mv.shape[1]))
    return replace(ecg, signal_mv=np.concatenate([signal_mv, zeros], axis=1))


def _header(uri: str) -> HeaderFacts | None:
    try:
        return read_header(uri)
    except RecordError:
        return None  # the record is rejected with this error when it is read


def _cuts(header: HeaderFacts | None, stretch: Stretch, duration_s: float) -> list[tuple[int, int, int]]:
    """(start, samples, padded to) of each row, in samples; empty for a row that is the whole record."""
    if header is None or header.num_samples is None or stretch == "start":
        return []
    window, length = samples_in(duration_s, header.sampling_rate_hz), header.num_samples
    if stretch == "first_5s_padded":
        samples = min(length, _PUBLISHED_SAMPLES, window)
        return [(0, samples, window)]
    if length <= window:
        return [(0, length, window)]
    starts = np.linspace(0, length - window, math.ceil(length / window))
    return [(round(float(start)), window, window) for start in starts]


@dataclass(frozen=True)
class _About:
    """What the comments of a header say: `#Dx: 164889003,59118001`, `#Age: 74`. Some releases write `# Dx:`."""

    labels: tuple[str, ...]
    statements: tuple[str, ...]
    age: float | None
    sex: str | None

    @classmethod
    def of(cls, header: HeaderFacts | None, database: Database, blanks: Blanks, words: SnomedWords | None) -> "_About":
        facts = comment_facts(header.comments if header else ())
        written = (identifier(code) for code in facts.get("dx", "").split(","))
        codes = tuple(code for code in written if not is_missing(code) and code.lower() != "unknown")
        published = tuple(f"csn:{word}" for word in published_classes(codes)) if database == "csn" else ()
        statements = words.of(codes) if words else ()
        return cls(
            codes + published, statements, age_years(facts.get("age", ""), blanks), sex(facts.get("sex", ""), blanks)
        )


def _rows(uri: str, about: _About, cuts: list[tuple[int, int, int]], *, several: bool) -> list[ManifestRow]:
    name = uri.rpartition("/")[2]
    suffixes = [f"#cut:start={start}&samples={samples}&padded_to={padded_to}" for start, samples, padded_to in cuts]
    return [
        ManifestRow(
            record_id=f"{name}-w{number}" if several else name,
            patient_id=name,
            fold=fold_of(name),
            record_uri=uri + suffix,
            report=join_statements(about.statements),
            statements=about.statements,
            labels=about.labels,
            age=about.age,
            sex=about.sex,
        )
        for number, suffix in enumerate(suffixes or [""])
    ]


def _notes(
    headers: list[HeaderFacts | None],
    rows: list[ManifestRow],
    database: Database,
    stretch: Stretch,
    padded: int,
    duration_s: float,
) -> tuple[str, ...]:
    notes = [
        "no patient ids: each record counts as a separate patient, assigned to folds 1 to 10 by a hash of its name; "
        "this is not the published split",
    ]
    unreadable = sum(header is None for header in headers)
    if unreadable:
        notes.append(f"{unreadable} headers cannot be read, so they give no codes")
    unlabelled = len({row.patient_id for row in rows if not row.labels})
    if unlabelled:
        notes.append(f"{unlabelled} records have no code")
    if stretch == "first_5s_padded":
        notes.append(f"the first {_PUBLISHED_SAMPLES} samples of each record, zero-padded to {duration_s:g} s")
    if stretch == "windows":
        notes.append(
            f"{len(headers)} records are {len(rows)} windows of {duration_s:g} s, {padded} of them with zeros behind a "
            "shorter record; a record's windows share its `patient_id`, and its score must combine all of them"
        )
    if database == "csn":
        known = sum(all(code in ACRONYMS for code in row.labels if not code.startswith("csn:")) for row in rows)
        notes.append(
            f"{len(rows) - known} of {len(rows)} rows have a code outside the database's table, and so no "
            "published label; `csn_exact` keeps them"
        )
    return tuple(notes)


class Cinc(Source):
    """Records of the PhysioNet/CinC challenges 2020 and 2021, and of Chapman-Shaoxing and Ningbo's own layout."""

    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = (
        "Perez Alday et al. 2020, doi:10.1088/1361-6579/abc960; Reyna et al. 2021, doi:10.22489/CinC.2021.109"
    )
    needs: ClassVar[dict[str, str]] = {"uri": "name a folder of WFDB records such as cpsc_2018"}
    uri: Uri | None = Field(None, description="folder of the records (local, s3://, gs://, az://)")
    database: Database = Field(
        "any",
        description="which classes are scored; csn is Chapman-Shaoxing and Ningbo, cinc2021 the 26 diagnoses of the "
        "challenge of 2021, for all its databases, any has no classes",
    )
    stretch: Stretch = Field(
        "start",
        description="start: the first duration_s, shorter records rejected; first_5s_padded: as MERL reads CPSC2018; "
        "windows: the whole record in windows of duration_s",
    )

    report: Literal["none", "snomed"] = Field(
        "none", description="snomed: the words of the codes, so that it can be trained on; none: for scoring only"
    )

    @property
    def reads_whole_records(self) -> bool:
        return self.stretch == "start"

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        words = SnomedWords.read(self.root) if self.report == "snomed" else None
        return cinc_manifest(
            self.root, database=self.database, stretch=self.stretch, duration_s=signal.duration_s, words=words
        )

    def read(self, record_uri: str) -> Ecg:
        return read_cut(record_uri) if "#cut:" in record_uri else super().read(record_uri)
