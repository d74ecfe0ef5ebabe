"""Embed the selected records of a prepared data set with a bundle, on a pool of encoder actors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Shaped
from ray.data import ActorPoolStrategy

from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import item_dataset, own_errors, plain, unpack_item
from mets_ray.cluster.shares import check_actor_fits
from mets_ray.config.kinds import EncoderRuntime
from mets_ray.config.settings import Config
from mets_ray.console import progress_bar
from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.recording_windows import window_name
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.lead_sets import lead_mask, recorded
from mets_ray.ecg.signal_features import signal_features
from mets_ray.errors import DatasetError
from mets_ray.model.predictor import Encoded, load_predictor
from mets_ray.model.windows import mean_embedding
from mets_ray.sources.cinc import OF_CHALLENGES

_EMBEDDING_OF = "ecg_embedding:"  # and the name of a set of leads
_LOGITS_OF = "head_logits:"  # and the name of a head


@dataclass(frozen=True)
class EmbeddedRecords:
    """Row i of each field belongs to `record_ids[i]`. `rows` is the number of stored rows that were embedded.

    `features` are taken before the projection, for linear probes; `embeddings` are the unit vectors after it.
    `with_fewer_leads`: embeddings of the same records by set of leads, all others zeroed. `partial`: rows in which a
    lead was not recorded. `row_ids`: of the stored row, the first where windows were joined. `signal_features`: see
    `ecg.signal_features`, their mean over joined windows. `head_logits`: by head of the bundle.
    """

    record_ids: tuple[str, ...]
    patients: Shaped[np.ndarray, "record"]
    labels: list[list[str]]
    reports: tuple[str, ...]
    embeddings: Float32[np.ndarray, "record dimension"]
    features: Float32[np.ndarray, "record feature"]
    rows: int
    with_fewer_leads: Mapping[str, Float32[np.ndarray, "record dimension"]] = field(default_factory=dict)
    partial: int = 0
    row_ids: tuple[str, ...] = ()
    ages: tuple[float | None, ...] = ()
    sexes: tuple[str | None, ...] = ()
    signal_features: Float32[np.ndarray, "record feature"] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    head_logits: Mapping[str, Float32[np.ndarray, "record class"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Records to embed, by folds. `fewer_leads`: also with each set of fewer leads. `untrained`: also with random
    weights. `heads`: also the logits of the bundle's heads."""

    selection: Selection
    fewer_leads: bool = False
    untrained: bool = False
    heads: bool = False


@dataclass(frozen=True)
class EmbeddedParts:
    """Embedded records by part: `bundle` of the bundle, `untrained` of random weights, for the parts that want them."""

    bundle: Mapping[str, EmbeddedRecords]
    untrained: Mapping[str, EmbeddedRecords]


class EcgEmbedder:
    """Runs on a scoring actor: loads a bundle once, then turns `signal_uv` into `ecg_embedding` and `ecg_features`.

    Both are float32. `focus`: `DatasetCard.focus`. `is_partial`: a lead was not recorded. `signal_features`: of the
    signal, see `ecg.signal_features`. `parts`: what is known of
    each value of the column `part`; without them there is no such column. For each of `lead_sets` there is also
    `ecg_embedding:NAME`, with these leads alone, and with `untrained_seed` there are `untrained_embedding` and
    `untrained_features`, of random weights; for each head of the bundle there is `head_logits:NAME`. All are zeros in
    the parts that do not want them. `encoder_runtime`: see `load_predictor`.
    """

    def __init__(
        self,
        bundle_uri: str,
        device: str,
        focus: float | None = None,
        *,
        parts: Mapping[str, Part] | None = None,
        lead_sets: Mapping[str, tuple[str, ...]] | None = None,
        untrained_seed: int | None = None,
        encoder_runtime: EncoderRuntime = "auto",
    ) -> None:
        self._focus, self._parts, self._lead_sets = focus, parts or {}, lead_sets or {}
        self._predictor = load_predictor(bundle_uri, device=device, encoder_runtime=encoder_runtime)
        self._untrained = None if untrained_seed is None else self._predictor.untrained(untrained_seed)

    def __call__(self, rows: pa.Table) -> pa.Table:
        signal_uv = signals(rows)
        encoded = self._predictor.encode(signal_uv, self._focus)
        rows = rows.drop_columns(["signal_uv"])
        rows = rows.append_column("ecg_embedding", vector_column(encoded.embeddings))
        rows = rows.append_column("ecg_features", vector_column(encoded.features))
        rows = rows.append_column("is_partial", pa.array(~recorded(signal_uv).all(axis=1)))
        signal = self._predictor.signal
        measured = signal_features(signal_uv, signal.leads, signal.sampling_rate_hz)
        rows = rows.append_column("signal_features", vector_column(measured))
        parts = [self._parts[name] for name in rows["part"].to_pylist()] if self._parts else []
        wanted = np.asarray([part.fewer_leads for part in parts], dtype=np.bool_)
        for name, members in self._lead_sets.items():
            vectors = np.zeros_like(encoded.embeddings)
            if wanted.any():
                kept = lead_mask(members, self._predictor.signal.leads).astype(np.int16)[:, None]
                vectors[wanted] = self._predictor.embed_windows(signal_uv[wanted] * kept, self._focus)
            rows = rows.append_column(f"{_EMBEDDING_OF}{name}", vector_column(vectors))
        rows = self._with_heads(rows, signal_uv, encoded, [part.heads for part in parts])
        if self._untrained is not None:
            wanted = np.asarray([part.untrained for part in parts], dtype=np.bool_)
            embeddings, features = np.zeros_like(encoded.embeddings), np.zeros_like(encoded.features)
            if wanted.any():
                embeddings[wanted], features[wanted] = self._untrained.encode(signal_uv[wanted], self._focus)
            rows = rows.append_column("untrained_embedding", vector_column(embeddings))
            rows = rows.append_column("untrained_features", vector_column(features))
        return rows

    def _with_heads(self, rows: pa.Table, signal_uv: np.ndarray, encoded: Encoded, wanted: Sequence[bool]) -> pa.Table:
        if not self._parts:
            return rows
        some = np.flatnonzero(wanted)
        known = Encoded(encoded.embeddings[some], encoded.features[some])
        for name, facts in self._predictor.heads.items():
            logits = np.zeros((len(signal_uv), len(facts.classes)), dtype=np.float32)
            if len(some):
                logits[some] = self._predictor.head_logits([name], signal_uv[some], self._focus, encoded=known)[name]
            rows = rows.append_column(f"{_LOGITS_OF}{name}", vector_column(logits))
        return rows


def vector_column(vectors: Float32[np.ndarray, "row dimension"]) -> pa.FixedSizeListArray:
    """One vector per row, as an Arrow array."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def embed_parts(
    config: Config,
    dataset: PreparedDataset,
    parts: Mapping[str, Part],
    bundle_uri: str,
    *,
    lead_sets: Mapping[str, tuple[str, ...]] | None = None,
) -> EmbeddedParts:
    """Embeddings and features of all selected records, from one pool; their signals are never sent to the driver.

    parts: by the setting that chose the folds, `folds.test`. lead_sets: those of `Part.fewer_leads`. The random weights
    of `Part.untrained` have the seed `config.seed`. Raises DatasetError if a part selects nothing, ConfigError if no
    actor fits.
    """
    groups = [(key, group) for key, part in parts.items() for group in dataset.row_groups(part.selection)]
    for key, part in parts.items():
        if all(of_part != key for of_part, _ in groups):
            raise DatasetError(
                f"`{key}` {list(part.selection.folds)} selects no records",
                hint="use folds that the data set's card lists",
            )
    actors = config.evaluate
    gpus = actors.num_gpus_per_actor
    check_actor_fits(reachable_nodes(), key="evaluate", cpus=1.0, gpus=gpus, resources={})
    untrained = {key: part for key, part in parts.items() if part.untrained}

    def read(batch: dict[str, Any]) -> pa.Table:
        key, group = unpack_item(batch)
        rows = dataset.read(group, parts[key].selection)
        return rows.append_column("part", pa.array([key] * rows.num_rows))

    embedded = (
        item_dataset(groups)
        .map_batches(read, batch_size=None)
        .map_batches(
            EcgEmbedder,
            fn_constructor_args=(bundle_uri, "cuda" if gpus else "cpu", dataset.card.focus),
            fn_constructor_kwargs={
                "parts": dict(parts),
                "lead_sets": lead_sets,
                "untrained_seed": config.seed if untrained else None,
                "encoder_runtime": config.encoder_runtime,
            },
            batch_size=actors.batch_size,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=actors.max_actors),
            num_cpus=0 if gpus else 1,  # on CPU, reading is fused into the actor; with a GPU, reading needs the CPU
            num_gpus=gpus or None,
        )
    )
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in parts}
    total = sum(group.rows for _, group in groups)
    with own_errors(), progress_bar(total=total, unit="ECG", description="embedding") as bar:
        for row in plain(embedded).iter_rows():
            rows[row["part"]].append(row)
            bar.update()
    of_windows = windows_of(dataset.card)
    return EmbeddedParts(
        {
            key: embedded_records(
                of_part, of_windows=of_windows, fewer_leads=parts[key].fewer_leads, heads=parts[key].heads
            )
            for key, of_part in rows.items()
        },
        {
            key: embedded_records(rows[key], of_windows=of_windows, by="untrained", fewer_leads=False)
            for key in untrained
        },
    )


def embed_records(
    config: Config, dataset: PreparedDataset, selection: Selection, bundle_uri: str, *, key: str
) -> EmbeddedRecords:
    """`embed_parts` of one part. key: the setting that chose the folds, for the error."""
    return embed_parts(config, dataset, {key: Part(selection)}, bundle_uri).bundle[key]


Windows = Literal["prepared", "challenge"]


def windows_of(card: DatasetCard) -> Windows | None:
    """How the rows of a data set may be windows of recordings, as their names say.

    Of a data set of windows (`DatasetCard.window_stride_s`) these are `<record>@0`, `<record>@10`; of the challenges'
    records `<patient>-w0`, `<patient>-w1` (`sources.cinc`). Elsewhere a record may be called anything.
    """
    if card.window_stride_s is not None:
        return "prepared"
    return "challenge" if card.source in OF_CHALLENGES else None


def embedded_records(
    rows: Sequence[dict[str, Any]],
    *,
    of_windows: Windows | None = None,
    by: Literal["ecg", "untrained"] = "ecg",
    fewer_leads: bool = True,
    heads: bool = False,
) -> EmbeddedRecords:
    """From rows with the columns `record_id`, `patient_id`, `labels`, `report` and those of `EcgEmbedder`.

    of_windows: of `windows_of`. by: whether embeddings and features are those of the bundle or of random weights.
    fewer_leads: whether to keep those with fewer leads. heads: whether to keep the logits of heads.
    """
    rows = sorted(rows, key=lambda row: str(row["record_id"]))
    sets = [column for column in rows[0] if column.startswith(_EMBEDDING_OF)] if rows and fewer_leads else []
    of_heads = [column for column in rows[0] if column.startswith(_LOGITS_OF)] if rows and heads else []
    return _join_windows(
        EmbeddedRecords(
            record_ids=tuple(str(row["record_id"]) for row in rows),
            patients=np.asarray([str(row["patient_id"]) for row in rows]),
            labels=[list(row["labels"]) for row in rows],
            reports=tuple(str(row["report"]) for row in rows),
            embeddings=np.asarray([row[f"{by}_embedding"] for row in rows], dtype=np.float32),
            features=np.asarray([row[f"{by}_features"] for row in rows], dtype=np.float32),
            rows=len(rows),
            with_fewer_leads={
                column.removeprefix(_EMBEDDING_OF): np.asarray([row[column] for row in rows], dtype=np.float32)
                for column in sets
            },
            partial=sum(bool(row.get("is_partial")) for row in rows),
            row_ids=tuple(str(row["record_id"]) for row in rows),
            ages=tuple(row.get("age") for row in rows),
            sexes=tuple(row.get("sex") for row in rows),
            signal_features=np.asarray([row.get("signal_features", ()) for row in rows], dtype=np.float32),
            head_logits={
                column.removeprefix(_LOGITS_OF): np.asarray([row[column] for row in rows], dtype=np.float32)
                for column in of_heads
            },
        ),
        of_windows,
    )


def _join_windows(records: EmbeddedRecords, of_windows: Windows | None) -> EmbeddedRecords:
    """The embeddings of a recording's windows are averaged.

    Serving does the same with the windows of a long recording (`model.windows`).
    """
    names = np.asarray(
        [
            _recording(name, str(patient), of_windows)
            for name, patient in zip(records.record_ids, records.patients, strict=True)
        ]
    )
    recordings, first, of_row = np.unique(names, return_index=True, return_inverse=True)
    if len(recordings) == len(names):
        return records
    rows_of = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row))[:-1])
    return replace(
        records,
        record_ids=tuple(recordings.tolist()),
        patients=records.patients[first],
        labels=[records.labels[row] for row in first],
        reports=tuple(records.reports[row] for row in first),
        embeddings=_means(records.embeddings, rows_of),
        with_fewer_leads={name: _means(of_set, rows_of) for name, of_set in records.with_fewer_leads.items()},
        row_ids=tuple(records.row_ids[row] for row in first),
        ages=tuple(records.ages[row] for row in first),
        sexes=tuple(records.sexes[row] for row in first),
        signal_features=np.stack([_known_mean(records.signal_features[rows]) for rows in rows_of]),
        features=_plain_means(records.features, rows_of),
        head_logits={name: _plain_means(logits, rows_of) for name, logits in records.head_logits.items()},
    )


def _plain_means(
    values: Float32[np.ndarray, "row value"], rows_of: Sequence[np.ndarray]
) -> Float32[np.ndarray, "record value"]:
    return np.asarray([values[rows].mean(axis=0, dtype=np.float64) for rows in rows_of], np.float32)


def _means(
    embeddings: Float32[np.ndarray, "row dimension"], rows_of: Sequence[np.ndarray]
) -> Float32[np.ndarray, "record dimension"]:
    return np.stack([mean_embedding(embeddings[rows]) for rows in rows_of])


def _known_mean(values: Float32[np.ndarray, "row feature"]) -> Float32[np.ndarray, " feature"]:
    """The mean of what was measured; nan where nothing was."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean = np.full(values.shape[1], np.nan, dtype=np.float32)
    np.divide(np.where(known, values, 0.0).sum(axis=0), count, out=mean, where=count > 0)
    return mean


def _recording(record_id: str, patient: str, of_windows: Windows | None) -> str:
    if of_windows is None:
        return record_id
    if of_windows == "prepared":
        window = window_name(record_id)
        return record_id if window is None else window.record_id
    start, mark, number = record_id.rpartition("-w")
    return start if mark and start == patient and number.isdecimal() else record_id
