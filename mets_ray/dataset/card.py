"""The storage format of a prepared data set: the columns of a shard, and the card next to the shards."""

import json
from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import DatasetError

SCHEMA_VERSION = 2  # 1, written before version 0.2: no digest, and shards without pieces
READ_VERSIONS = (1, SCHEMA_VERSION)
CARD_NAME = "card.json"
MAX_ROW_GROUP_ROWS = 256
SHARD_BYTES = 32 * 2**20

# Small columns: they are read without the signals, so indexing a whole data set is cheap.
INDEX_COLUMNS = ("patient_id", "fold")


def shard_schema(signal: SignalConfig) -> pa.Schema:
    """Columns of a shard. `signal_uv` is int16 microvolts of shape [lead, sample].

    int16 microvolts are exact for sources with a resolution of 1 µV and take half the bytes of float32.
    """
    shape = (len(signal.leads), signal.num_samples)
    return pa.schema(
        [
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("patient_id", pa.string(), nullable=False),
            pa.field("fold", pa.int32(), nullable=False),
            pa.field("signal_uv", pa.fixed_shape_tensor(pa.int16(), shape), nullable=False),
            pa.field("report", pa.string(), nullable=False),
            pa.field("statements", pa.list_(pa.string()), nullable=False),
            pa.field("labels", pa.list_(pa.string()), nullable=False),
            pa.field("age", pa.float32()),
            pa.field("sex", pa.string()),
        ]
    )


REJECTED_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("record_uri", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("report", pa.string(), nullable=False),
        pa.field("hint", pa.string()),  # what mends it, where the error says so; older files have none
    ]
)


def rows_per_shard(signal: SignalConfig) -> int:
    """Records in one shard of about 32 MB: whole row groups, at least one. zstd reduces int16 ECGs to about 80%."""
    record_bytes = 2 * len(signal.leads) * signal.num_samples * 0.8
    return max(1, int(SHARD_BYTES / record_bytes / MAX_ROW_GROUP_ROWS)) * MAX_ROW_GROUP_ROWS


def _below_the_card(path: str) -> str:
    if fault := storage.path_fault(path):
        raise ValueError(f"{path!r} is not a path below the card: {fault}")
    return path


class Shard(BaseModel):
    """One Parquet file; `path` is relative to the card.

    `pieces` cut it at its column chunks, so that what is read can be checked without reading the rest. Older shards
    have none and are checked as a whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, AfterValidator(_below_the_card)]
    sha256: str
    row_group_rows: tuple[int, ...]
    pieces: tuple[storage.Piece, ...] = ()


class DatasetCard(BaseModel):
    """`card.json`: written last, so a folder without it is not a finished data set.

    `fingerprint` identifies all that the shards were made from. It knows the signal files by name only: with the same
    files and the same pyarrow, the same fingerprint means the same bytes. `folds` and `rejected` count records; `notes`
    say how the source was read. Without `has_reports` every report is empty: the data set is for evaluation. With
    `shuffled_reports` each record has the report of another record. `focus_s`: labels describe what happens within
    about this time of the middle of the window; None: the whole window. `window_stride_s`: each row is a window of a
    recording, named `<record>@<start_s>`, and the next one begins so much later; None: a row is a record.
    `patient_folds`: into how many folds patients were divided by a hash (`prepare.patient_folds`); None: those of the
    source. `licence` and `citation` are the source's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    fingerprint: str
    source: str
    source_uri: str | None
    source_sha256: str
    synthetic: bool
    sampling_rate_hz: int
    duration_s: float
    leads: tuple[str, ...]
    highpass_hz: float | None = None  # older data sets were prepared without a filter
    records_in: int
    records_out: int
    rejected: dict[str, int]
    folds: dict[int, int]
    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    has_reports: bool = True
    shuffled_reports: bool = False
    focus_s: float | None = None
    window_stride_s: float | None = None
    patient_folds: int | None = None
    licence: str = ""
    citation: str = ""
    command: str
    created_at: str

    @property
    def signal(self) -> SignalConfig:
        return SignalConfig(self.sampling_rate_hz, self.duration_s, self.leads, self.highpass_hz)

    @property
    def focus(self) -> float | None:
        """`focus_s` as a fraction of the window, for `EcgEncoder.forward`."""
        return None if self.focus_s is None else self.focus_s / self.duration_s

    @property
    def content_sha256(self) -> str:
        """Identifies the bytes of all shards, which must be unchanged when a run resumes."""
        return storage.digest_of({"shards": [shard.sha256 for shard in self.shards]})


def write_card(dataset_uri: str, card: DatasetCard) -> None:
    """Write `card.json` with the digest of its content."""
    storage.write_bytes(storage.join(dataset_uri, CARD_NAME), storage.seal(card.model_dump_json()))


def read_card(dataset_uri: str) -> DatasetCard:
    """The card of a prepared data set.

    Raises DatasetError if there is none (an unfinished or unrelated folder), it has another schema version, or it is
    damaged. A card of schema version 1 has no digest: only its form is checked.
    """
    uri = storage.join(dataset_uri, CARD_NAME)
    try:
        data = storage.read_bytes(uri)
    except storage.MissingFileError as error:
        raise DatasetError(
            f"`{dataset_uri}` holds no {CARD_NAME}, so it is not a finished data set",
            hint="run jobs/prepare.py with this dataset_uri (it continues where it stopped)",
        ) from error
    try:
        sealed = storage.unseal(data)
    except ValueError as error:
        raise _damaged(uri, str(error)) from error
    version = sealed.facts.get("schema_version")
    if version not in READ_VERSIONS:
        raise DatasetError(
            f"`{uri}` has schema version {version}, this mets_ray reads {SCHEMA_VERSION}",
            hint="prepare the data set again with this version of mets_ray",
        )
    try:
        sealed.check(optional=version == 1)
        return DatasetCard.model_validate_json(json.dumps(sealed.facts))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(uri, f"`{place}`: {first['msg']}") from error
    except ValueError as error:
        raise _damaged(uri, str(error)) from error


def _damaged(uri: str, why: str) -> storage.DamagedFileError:
    return storage.DamagedFileError(
        f"`{uri}` is not a card as it was written: {why}",
        hint="delete this card and run prepare again with the settings of the data set: finished shards are kept",
    )
