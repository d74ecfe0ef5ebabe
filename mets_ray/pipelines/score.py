"""Score a whole prepared data set: encoder actors, one file per shard, and a restart that skips finished shards."""

import io
import itertools
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from jaxtyping import Float32
from ray.data import ActorPoolStrategy

from mets_ray import storage
from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_errors, plain
from mets_ray.cluster.shares import check_actor_fits
from mets_ray.config.kinds import EncoderRuntime
from mets_ray.config.settings import Config, ScoreConfig
from mets_ray.console import progress_bar, say
from mets_ray.dataset.card import DatasetCard, Shard
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.recording_windows import WindowName, window_name
from mets_ray.dataset.shard_reader import open_shard, read_ahead, signals
from mets_ray.ecg.lead_sets import recorded
from mets_ray.errors import DatasetError, RecordError
from mets_ray.metrics.intervals import number_json
from mets_ray.model.bundle import Bundle, check_signal, with_reference
from mets_ray.model.calibrated_classes import OVER_TIME, CalibratedClasses, uncalibrated
from mets_ray.model.lead_quality import NEEDS_EVERY_LEAD
from mets_ray.model.predictor import Predictor, load_predictor, sigmoid
from mets_ray.model.windows import mean_embedding
from mets_ray.pipelines.embed import vector_column
from mets_ray.pipelines.input_drift import NO_DRIFT, InputCounter, WrittenDrift, write_drift
from mets_ray.pipelines.score_columns import ScoreTask, with_calibrated, with_columns, with_z_scores
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.tasks.questions import Questions

MANIFEST_NAME = "scores.json"


METADATA_KEY = b"mets_ray"
_KEPT_COLUMNS = ("record_id", "patient_id", "fold")
_OF_PROBABILITIES = (
    "probability is calibrated on validation records, and holds where classes are as frequent as there; present: it "
    "reaches the threshold."
)
_OF_Z_SCORES = (
    "z_score is the similarity in standard deviations above its mean over the ECGs of the bundle's reference, and can "
    "be compared between classes; null for ECGs that lack leads and for means of windows."
)
_OF_HEADS = "score:head is the sigmoid of a head's logit, for each class alone: not calibrated."
_COLUMNS_VERSION = 3  # 1 had no `leads_missing`, 2 no `z_score`: files of two are not mixed in one folder


@dataclass(frozen=True)
class Scored:
    """The result of a scoring job.

    `records` were scored by this job, `skipped` by an earlier one; `drift` is of both. `records_per_s` is measured from
    the first request for an actor, `steady_records_per_s` from when every actor had delivered a shard (nan if no shard
    came after that).
    """

    output_uri: str
    records: int
    skipped: int
    shards: int
    records_per_s: float
    steady_records_per_s: float
    drift: WrittenDrift = NO_DRIFT


class ShardScorer:
    """Loads a bundle once, then scores whole shards.

    A shard is the unit of progress: its file is written at the end, as a whole. A killed job leaves no file for an
    unfinished shard, and the next job scores it again. Memory holds the results of one shard and the signals of two
    row groups.
    """

    def __init__(
        self,
        bundle_uri: str,
        tasks: tuple[ScoreTask, ...],
        dataset: PreparedDataset,
        *,
        output_uri: str,
        metadata: dict[str, object],
        settings: ScoreConfig,
        encoder_runtime: EncoderRuntime = "auto",
    ) -> None:
        device = "cuda" if settings.num_gpus_per_actor else "cpu"
        self._predictor = load_predictor(bundle_uri, device=device, encoder_runtime=encoder_runtime)
        self._tasks = tasks
        self._vectors = [torch.tensor(task.vectors) for task in tasks]
        self._levels = [self._predictor.levels(vectors) for vectors in self._vectors]
        self._dataset = dataset
        self._output_uri = output_uri
        self._metadata = metadata | {"encoder_runtime": self._predictor.encoder_runtime}
        self._settings = settings
        reference = with_reference(self._predictor.bundle, settings.reference_uri).reference
        self._inputs = None if reference is None else InputCounter(reference.reference, dataset.card)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One row with a `shard` as JSON → the number of `records` scored and the `actor` that scored them."""
        (packed,) = batch["shard"]
        records = self.score(Shard.model_validate_json(str(packed)))
        return {"records": [records], "actor": [f"{socket.gethostname()}:{os.getpid()}"]}

    def score(self, shard: Shard) -> int:
        """Score every record of `shard` and write its file. Returns the number of records that were read."""
        parts = [
            self._embedded(group.slice(start, self._settings.batch_size))
            for group in self._row_groups(shard)
            for start in range(0, group.num_rows, self._settings.batch_size)
        ]
        kept = pa.concat_tables([table for table, *_ in parts])
        embeddings, logits = (
            np.concatenate(rows) for rows in zip(*((one, other) for _, one, other in parts), strict=True)
        )
        records = int(kept.num_rows)
        if self._dataset.card.window_stride_s is not None:
            averaged = self._settings.rows == "recording"
            kept, embeddings, logits = _of_windows(kept, embeddings, logits, averaged=averaged)
        table = self._with_heads(self._scored(kept, embeddings), logits)
        metadata = self._metadata | {"shard": shard.path, "shard_sha256": shard.sha256}
        counts = {} if self._inputs is None else self._inputs.take()
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()} | counts)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        storage.write_bytes(score_uri(self._output_uri, shard.path), buffer.getvalue())
        return records

    def _row_groups(self, shard: Shard) -> Iterator[pa.Table]:
        """Yields one row group at a time; the next is read while the caller computes."""
        file = open_shard(self._dataset.uri, shard)
        columns = [*_KEPT_COLUMNS, "signal_uv"]
        groups = (file.read_row_group(index, columns=columns) for index in range(len(shard.row_group_rows)))
        with ThreadPoolExecutor(1) as reader:
            yield from read_ahead(groups, reader)

    def _embedded(
        self, rows: pa.Table
    ) -> tuple[pa.Table, Float32[np.ndarray, "row dimension"], Float32[np.ndarray, "row class"]]:
        """What is kept of rows, with the leads that each lacks, their embeddings, and the logits of all heads."""
        signal_uv, focus = signals(rows), self._dataset.card.focus
        missing = self._leads_missing(signal_uv, rows)
        encoded = self._predictor.encode(signal_uv, focus)
        if self._inputs is not None:
            self._inputs.add(signal_uv, encoded.embeddings, rows["patient_id"].to_pylist())
        of_heads = self._predictor.head_logits(self._predictor.heads, signal_uv, focus, encoded=encoded)
        logits = np.concatenate([np.empty((len(signal_uv), 0), np.float32), *of_heads.values()], axis=1)
        kept = rows.select(list(_KEPT_COLUMNS)).append_column("leads_missing", missing)
        return kept, encoded.embeddings, logits

    def _with_heads(self, table: pa.Table, logits: Float32[np.ndarray, "record class"]) -> pa.Table:
        first = 0
        for name, head in self._predictor.heads.items():
            of_head = logits[:, first : first + len(head.classes)]
            table = with_columns(table, f"logit:head:{name}", head.classes, of_head)
            table = with_columns(table, f"score:head:{name}", head.classes, sigmoid(of_head))
            first += len(head.classes)
        return table

    def _scored(self, table: pa.Table, embeddings: Float32[np.ndarray, "record dimension"]) -> pa.Table:
        if self._settings.embeddings:
            table = table.append_column("embedding", vector_column(embeddings))
        for task, vectors, levels in zip(self._tasks, self._vectors, self._levels, strict=True):
            scores, similarity = self._predictor.scores(embeddings, vectors)
            table = with_columns(table, f"similarity:{task.task}", task.classes, similarity)
            table = with_columns(table, f"score:{task.task}", task.classes, scores)
            if levels is not None:
                table = with_z_scores(table, task, levels, similarity)
            if task.calibrated is not None and task.calibrated.fault is None:
                table = with_calibrated(table, task, task.calibrated, similarity)
        return table

    def _leads_missing(self, signal_uv: np.ndarray, rows: pa.Table) -> pa.Array:
        """Names of the leads that were not recorded, by row. Raises RecordError if the bundle needs every lead."""
        leads = np.asarray(self._predictor.signal.leads)
        missing = [leads[~present].tolist() for present in recorded(signal_uv)]
        first = next((row for row, names in enumerate(missing) if names), None)
        if first is not None and not self._predictor.bundle.takes_fewer_leads:
            raise RecordError(
                "missing_leads",
                f"{len(missing[first])} of {len(leads)} leads were not recorded: {', '.join(missing[first])}",
                where=f"record `{rows['record_id'][first].as_py()}`",
                hint=NEEDS_EVERY_LEAD,
            )
        return pa.array(missing, type=pa.list_(pa.string()))


def _of_windows(
    rows: pa.Table,
    embeddings: Float32[np.ndarray, "window dimension"],
    logits: Float32[np.ndarray, "window class"],
    *,
    averaged: bool,
) -> tuple[pa.Table, Float32[np.ndarray, "row dimension"], Float32[np.ndarray, "row class"]]:
    """Rows of windows with their `recording_id` and `start_s`; averaged: one row for each recording, with the number of
    its `windows`, and the means of their embeddings and logits. The windows of a recording are in one shard, one after
    the other.
    """
    names = [window_name(row_id) or WindowName(row_id, 0.0) for row_id in rows["record_id"].to_pylist()]
    recordings = [name.record_id for name in names]
    if not averaged:
        rows = rows.append_column("recording_id", pa.array(recordings, pa.string()))
        return (
            rows.append_column("start_s", pa.array([name.start_s for name in names], pa.float64())),
            embeddings,
            logits,
        )
    spans = [list(group) for _, group in itertools.groupby(range(len(names)), key=recordings.__getitem__)]
    firsts = [span[0] for span in spans]
    rows = rows.take(firsts).set_column(0, "record_id", pa.array([recordings[first] for first in firsts], pa.string()))
    rows = rows.append_column("windows", pa.array([len(span) for span in spans], pa.int32()))
    means = np.stack([logits[span].mean(axis=0, dtype=np.float64) for span in spans]).astype(np.float32)
    return rows, np.stack([mean_embedding(embeddings[span]) for span in spans]), means


def score(config: Config, dataset_uri: str, bundle_uri: str) -> Scored:
    """Write similarities, scores and embeddings of every record, in all folds, with or without labels.

    Of a data set of windows each row is a window with its `start_s`, because what happens in hours is lost in their
    mean; `score.rows=recording` writes that mean. A shard that already has its file is skipped. The default folder is
    named after everything that the values depend on, so the same command continues where it was killed, and another
    bundle or prompt set gets a separate folder. Where the bundle has a reference of its inputs, all records are
    compared with it (`input_drift`).

    Raises CheckpointError if bundle and data set do not match, or `score.reference_uri` is of another bundle,
    ConfigError for unknown tasks or prompts, DatasetError if `score.output_uri` holds other scores, RecordError
    `missing_leads` for a record without leads that the bundle needs, FolderInUseError if another job writes there.
    """
    dataset, settings = PreparedDataset.open(dataset_uri), config.score
    predictor = load_predictor(
        bundle_uri, encoder_runtime=config.encoder_runtime, calibration_uri=settings.calibration_uri
    )
    card = dataset.card
    check_signal(card.signal, predictor.facts)
    bundle = with_reference(predictor.bundle, settings.reference_uri)
    sources = (card.source, predictor.facts.dataset_source)
    questions = Questions.without_labels(settings.prompt_set, sources, settings.tasks)
    check_actor_fits(reachable_nodes(), key="score", cpus=1.0, gpus=settings.num_gpus_per_actor, resources={})
    metadata = _metadata(card, predictor, bundle_uri, questions, settings)
    output_uri = _output_uri(config, metadata)
    with storage.hold(output_uri, "score", timeout_s=config.lease_timeout_s):
        _claim(output_uri, metadata)
        finished = set(storage.list_files(output_uri, suffix=".parquet"))
        todo = [shard for shard in card.shards if score_uri(output_uri, shard.path) not in finished]
        total = sum(map(_rows, card.shards))
        skipped = total - sum(map(_rows, todo))
        if skipped:
            say(f"{skipped:,} of {total:,} records were already scored, in `{output_uri}`")
        if not todo:
            return _finish(Scored(output_uri, 0, skipped, len(card.shards), 0.0, math.nan), metadata, bundle, card)
        scorer = {
            "bundle_uri": bundle_uri,
            "tasks": _score_tasks(config, predictor, questions, dataset),
            "dataset": dataset,
            "output_uri": output_uri,
            "metadata": metadata,
            "settings": settings,
            "encoder_runtime": config.encoder_runtime,
        }
        arrivals = _score_shards(todo, scorer, settings, skipped=skipped)
        records, seconds = sum(count for _, _, count in arrivals), arrivals[-1][0]
        result = Scored(output_uri, records, skipped, len(card.shards), records / seconds, steady_rate(arrivals))
        return _finish(result, metadata, bundle, card)


def _score_shards(
    todo: list[Shard], scorer: dict[str, Any], settings: ScoreConfig, *, skipped: int
) -> list[tuple[float, str, int]]:
    """Score shards on a pool of actors. Returns (seconds, actor, records) of each as it arrived."""
    items = [{"shard": shard.model_dump_json()} for shard in todo]
    scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardScorer,
        fn_constructor_kwargs=scorer,
        batch_size=None,
        # At most one shard waits at each actor, so that the last shards are spread evenly.
        compute=ActorPoolStrategy(
            min_size=1, max_size=min(settings.max_actors, len(todo)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=1,
        num_gpus=settings.num_gpus_per_actor or None,
    )
    began, arrivals = time.monotonic(), []
    total = skipped + sum(map(_rows, todo))
    with own_errors(), progress_bar(total=total, unit="ECG", description="score") as bar:
        bar.update(skipped)
        # No prefetching: the iterator would hold back each result until the next shard is finished.
        for batch in plain(scored).iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for records, actor in zip(batch["records"].tolist(), batch["actor"].tolist(), strict=True):
                arrivals.append((time.monotonic() - began, str(actor), int(records)))
                bar.update(int(records))
    return arrivals


def figures(result: Scored) -> dict[str, Any]:
    """The machine-readable result of a job."""
    return {
        "output_uri": result.output_uri,
        "records": result.records,
        "skipped": result.skipped,
        "shards": result.shards,
        "records_per_s": round(result.records_per_s, 1),
        "steady_records_per_s": number_json(round(result.steady_records_per_s, 1)),
        "drift_uri": result.drift.page_uri or None,
        "drifted": list(result.drift.drifted),
        "notices": [result.drift.notice] if result.drift.notice else [],
    }


def steady_rate(arrivals: list[tuple[float, str, int]]) -> float:
    """Records per second after every actor has delivered its first shard.

    arrivals: (seconds, actor, records), ordered by time. Returns nan if nothing arrived after that."""
    seen: set[str] = set()
    last_first = 0
    for position, (_, actor, _) in enumerate(arrivals):
        if actor not in seen:
            seen.add(actor)
            last_first = position
    after = arrivals[last_first + 1 :]
    seconds = arrivals[-1][0] - arrivals[last_first][0]
    return sum(records for _, _, records in after) / seconds if after and seconds > 0 else math.nan


def _score_tasks(
    config: Config, predictor: Predictor, questions: Questions, dataset: PreparedDataset
) -> tuple[ScoreTask, ...]:
    learn_prompts(config, predictor, questions.texts(), dataset)
    found = []
    for name in questions.tasks:
        classes = questions.classes(name)
        vectors = predictor.class_vectors(classes)
        assert vectors is not None, f"the prompts of `{name}` have no vectors"
        calibrated = _calibrated(dataset.card, predictor, questions, name)
        found.append(ScoreTask(name, tuple(classes), vectors.numpy(), calibrated))
    return tuple(found)


def _calibrated(card: DatasetCard, predictor: Predictor, questions: Questions, task: str) -> CalibratedClasses:
    classes, prompts = questions.classes(task), questions.prompts
    if card.window_stride_s is not None:
        return uncalibrated(OVER_TIME, len(classes))
    return predictor.calibrated(classes, f"{prompts.name}:{task}", prompts.version)


def _metadata(
    card: DatasetCard, predictor: Predictor, bundle_uri: str, questions: Questions, settings: ScoreConfig
) -> dict[str, Any]:
    """The metadata stored with each file; `fingerprint` covers everything that the values depend on."""
    facts, prompt_set = predictor.facts, questions.prompts
    identity = {
        "columns": _COLUMNS_VERSION,
        "model_sha256": facts.files["model.safetensors"],
        "bundle_digest": predictor.bundle.digest,
        "text_fingerprint": facts.text_fingerprint,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "tasks": list(questions.tasks),
        "embeddings": settings.embeddings,
        "dataset_sha256": card.content_sha256,
    }
    if predictor.encoder_runtime == "openvino_bf16" and not settings.num_gpus_per_actor:
        identity["encoder_precision"] = "bf16"  # the other runtimes agree, so one may go on with another's scores
    if card.window_stride_s is not None:
        identity["rows"] = settings.rows
    if predictor.bundle.reference is not None:
        identity["reference"] = storage.digest_of(predictor.bundle.reference.reference.to_json())
    thresholds = _thresholds(card, predictor, questions)
    if thresholds:
        identity["calibrations"] = sorted(
            storage.digest_of(one.calibration.to_json())
            for file in predictor.bundle.calibrations.files
            for one in file.tasks.values()
            if file.prompts.name == prompt_set.name and file.prompts.version == prompt_set.version
        )
    return identity | {
        "fingerprint": storage.digest_of(identity),
        "bundle_uri": bundle_uri,
        "run": facts.run,
        "logit_scale": predictor.logit_scale,
        "synthetic": card.synthetic or facts.synthetic,
        "thresholds": thresholds,
        "heads": {name: head.model_dump(mode="json") for name, head in predictor.heads.items()},
        "lead_sets": {name: quality.model_dump() for name, quality in facts.lead_sets.items()},
        "notices": [
            "similarity is a cosine, score its softmax over the classes of a task: not calibrated, so no probability.",
            *([_OF_Z_SCORES] if predictor.bundle.reference is not None else []),
            *([_OF_PROBABILITIES] if thresholds else []),
            *([_OF_HEADS] if predictor.heads else []),
            "Research software, not a medical device.",
        ],
    }


def _thresholds(card: DatasetCard, predictor: Predictor, questions: Questions) -> dict[str, dict[str, float]]:
    """The probability from which each class is reported as present, by task; only of calibrated classes."""
    found = {}
    for task in questions.tasks:
        calibrated, classes = _calibrated(card, predictor, questions, task), questions.classes(task)
        rows = zip(classes, calibrated.thresholds.tolist(), calibrated.faults, strict=True)
        if known := {name: threshold for name, threshold, fault in rows if fault is None}:
            found[task] = known
    return found


def _output_uri(config: Config, metadata: dict[str, Any]) -> str:
    name = f"scores-{metadata['run']}-{metadata['prompt_set']['name']}-{metadata['fingerprint'][:8]}"
    default = storage.join(storage.absolute(config.run_uri), name)
    return storage.absolute(config.score.output_uri) if config.score.output_uri else default


def _claim(output_uri: str, metadata: dict[str, Any]) -> None:
    """Say in the output folder whose scores it holds. Raises DatasetError if it holds others."""
    manifest_uri = storage.join(output_uri, MANIFEST_NAME)
    if not storage.exists(manifest_uri):
        storage.write_bytes(manifest_uri, json.dumps(metadata | {"finished": False}, indent=1).encode())
        return
    try:
        before = dict(json.loads(storage.read_bytes(manifest_uri)))
    except (ValueError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"`{manifest_uri}` is damaged: {error}", hint="delete this file: finished shards are kept"
        ) from error
    changed = sorted(key for key in metadata if key != "bundle_uri" and before.get(key) != metadata[key])
    if before.get("fingerprint") != metadata["fingerprint"]:
        raise DatasetError(
            f"`{output_uri}` holds other scores: {', '.join(f'`{key}`' for key in changed if key != 'fingerprint')} "
            "differ",
            hint="choose another score.output_uri, or omit it: the default folder's name depends on these",
        )


def _finish(result: Scored, metadata: dict[str, Any], bundle: Bundle, card: DatasetCard) -> Scored:
    files = [score_uri(result.output_uri, shard.path) for shard in card.shards]
    result = replace(result, drift=write_drift(result.output_uri, files, bundle, card))
    facts = metadata | {"finished": True, "records": result.records + result.skipped, "shards": result.shards}
    storage.write_bytes(storage.join(result.output_uri, MANIFEST_NAME), json.dumps(facts, indent=1).encode())
    say(f"scores of {result.records + result.skipped:,} records in `{result.output_uri}`")
    return result


def _rows(shard: Shard) -> int:
    return sum(shard.row_group_rows)


def score_uri(output_uri: str, shard_path: str) -> str:
    """Where the scores of a shard are written: the shard's file name below `output_uri`."""
    return storage.join(output_uri, PurePosixPath(shard_path).name)
