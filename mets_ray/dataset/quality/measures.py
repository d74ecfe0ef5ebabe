"""`quality/<name>.parquet`: a row of measures for each record of a shard, in the shard's order.

They are taken while the shard is written, from the signal as its source has it. Whoever looks for the records behind a
figure of the quality page finds them here, by `record_id`.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16, UInt64

from mets_ray import storage
from mets_ray.dataset.card import Shard
from mets_ray.ecg.derived_leads import derivable_leads
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.signal_quality import SignalQuality, signal_quality

_BY_LEAD = pa.list_(pa.float32(), len(LEADS))  # in the order of LEADS, nan where a lead was not recorded

MEASURES_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),  # "" where it is not known, as all up to the rate
        pa.field("device", pa.string(), nullable=False),
        pa.field("site", pa.string(), nullable=False),
        pa.field("recorded_at", pa.string(), nullable=False),  # ISO 8601
        pa.field("source_rate_hz", pa.float64(), nullable=False),
        pa.field("source_duration_s", pa.float64(), nullable=False),
        pa.field("derived_leads", pa.list_(pa.string()), nullable=False),
        pa.field("amplitude_mv", _BY_LEAD, nullable=False),
        pa.field("offset_mv", _BY_LEAD, nullable=False),
        pa.field("flat_s", _BY_LEAD, nullable=False),
        pa.field("clipped_s", _BY_LEAD, nullable=False),
        pa.field("wander_share", pa.float32(), nullable=False),
        pa.field("hum_50hz_ratio", pa.float32(), nullable=False),
        pa.field("hum_60hz_ratio", pa.float32(), nullable=False),
        pa.field("einthoven_uv", pa.float32(), nullable=False),
        pa.field("augmented_uv", pa.float32(), nullable=False),
        pa.field("limb_residual", pa.float32(), nullable=False),
        pa.field("suspect", pa.string(), nullable=False),
        pa.field("signal_hash", pa.uint64(), nullable=False),  # of the stored signal: equal only if it is
        pa.field("coarse_hash", pa.uint64(), nullable=False),  # see `coarse_hashes`
    ]
)

_COARSE_RATE_HZ = 50
_COARSE_BITS = 64


@dataclass(frozen=True)
class RecordMeasures:
    """What is known of a record once it was read: its file's facts, and its signal's quality."""

    format: str
    device: str
    site: str
    recorded_at: str
    source_rate_hz: float
    source_duration_s: float
    derived_leads: tuple[str, ...]
    quality: SignalQuality


def quality_path(name: str) -> str:
    """Below the card, for the shard `shards/<name>.parquet`."""
    return f"quality/{name}.parquet"


def measure(
    ecg: Ecg, duration_s: float, *, device: str | None = None, site: str | None = None, recorded_at: str | None = None
) -> RecordMeasures:
    """Measures a record that `preprocess` takes. device: as its source says it; default: as its own file does.

    recorded_at: never taken from the file here, because a pseudonymised data set has none.
    """
    return RecordMeasures(
        format=ecg.meta.format,
        device=device or (ecg.meta.device or "").strip(),
        site=site or "",
        recorded_at=recorded_at or "",
        source_rate_hz=float(ecg.sampling_rate_hz),
        source_duration_s=ecg.signal_mv.shape[1] / float(ecg.sampling_rate_hz),
        derived_leads=tuple(derivable_leads(ecg, LEADS)),
        quality=signal_quality(ecg, duration_s),
    )


def measures_table(
    record_ids: list[str],
    measures: list[RecordMeasures],
    signals_uv: Int16[np.ndarray, "row lead sample"],
    rate_hz: int,
) -> pa.Table:
    """The rows of `quality/<name>.parquet`; rate_hz: of the stored signals."""
    qualities = [one.quality for one in measures]
    columns = {
        "record_id": record_ids,
        **{
            name: [getattr(one, name) for one in measures]
            for name in ("format", "device", "site", "recorded_at", "source_rate_hz", "source_duration_s")
        },
        "derived_leads": [list(one.derived_leads) for one in measures],
        **{
            name: [getattr(one, name) for one in qualities]
            for name in ("amplitude_mv", "offset_mv", "flat_s", "clipped_s", "wander_share", "hum_50hz_ratio")
        },
        "hum_60hz_ratio": [one.hum_60hz_ratio for one in qualities],
        **{
            name: [getattr(one.order, name) for one in qualities]
            for name in ("einthoven_uv", "augmented_uv", "limb_residual", "suspect")
        },
        "signal_hash": [signal_hash(signal) for signal in signals_uv],
        "coarse_hash": coarse_hashes(signals_uv, rate_hz),
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in MEASURES_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=MEASURES_SCHEMA)


def read_measures(dataset_uri: str, shard: Shard) -> pa.Table | None:
    """What `prepare` measured of a shard's records, in their order; None where an older version wrote nothing.

    Columns that came later are empty in older files.
    """
    name = shard.path.removeprefix("shards/").removesuffix(".parquet")
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(dataset_uri, quality_path(name)))))
        for later in ("site", "recorded_at"):
            if later not in table.column_names:
                at = MEASURES_SCHEMA.get_field_index(later)
                table = table.add_column(at, MEASURES_SCHEMA.field(at), pa.array([""] * table.num_rows))
        return table.cast(MEASURES_SCHEMA)
    except (storage.MissingFileError, pa.ArrowException, ValueError):
        return None


def measure_stored(
    record_ids: list[str], signals_uv: Int16[np.ndarray, "row lead sample"], signal: SignalConfig
) -> pa.Table:
    """The same rows from stored signals, where a data set has none: its format, device and length are then unknown, and
    what filter and resampling removed is not measured. Leads of zeros count as not recorded.
    """
    measures = []
    for stored in signals_uv:
        recorded = stored.any(axis=1)
        ecg = Ecg(
            stored[recorded] / 1000.0,
            tuple(lead for lead, there in zip(signal.leads, recorded, strict=True) if there),
            float(signal.sampling_rate_hz),
        )
        measures.append(measure(ecg, signal.duration_s))
    return measures_table(record_ids, measures, signals_uv, signal.sampling_rate_hz)


def signal_hash(signal_uv: Int16[np.ndarray, "lead sample"]) -> int:
    """Of two million different signals, two share a hash with probability 1e-7."""
    data = np.ascontiguousarray(signal_uv).data
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def coarse_hashes(signals_uv: Int16[np.ndarray, "row lead sample"], rate_hz: int) -> UInt64[np.ndarray, "row"]:
    """64 bits, of which two signals share the more the higher their correlation is (Charikar 2002, doi:10.1145/509907.
    509965): the signs of random sums of the signal at about 50 Hz. At a correlation of 0.99 3 bits differ on average,
    between unrelated ECGs about 32.
    """
    rows, leads, samples = signals_uv.shape
    step = max(1, rate_hz // _COARSE_RATE_HZ)
    kept = samples // step
    # Sums of whole numbers below 2^24 are exact in float32, so a product with ones is the sum in any order: five times
    # as fast as numpy's mean over a short axis.
    ones = np.ones(step, dtype=np.float32)
    coarse = np.empty((rows, leads, kept), dtype=np.float32)
    for signal_uv, into in zip(signals_uv, coarse, strict=True):
        np.matmul(signal_uv[:, : kept * step].astype(np.float32).reshape(leads, kept, step), ones, out=into)
    coarse /= np.float32(step)
    coarse -= coarse.mean(axis=2, keepdims=True)
    # RandomState's numbers are the same in every version of numpy: hashes of shards of different times are compared.
    signs = np.random.RandomState(0).randint(0, 2, (leads * kept, _COARSE_BITS)).astype(np.float32) * 2 - 1
    bits = (coarse.reshape(rows, leads * kept) @ signs) > 0
    found: np.ndarray = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return found
