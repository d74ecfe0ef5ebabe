"""What every training worker runs: the planned stream → loss over the global batch → step; validation; checkpoint."""

import logging
import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import prepare_model
from torch import nn

from mets_ray.checkpoint import (
    Bundle,
    BundleFacts,
    build_model,
    load_bundle,
    read_bundle,
    read_trainer_state,
    write_bundle,
)
from mets_ray.collectives import (
    broadcast_buffers,
    broadcast_object,
    gather_objects,
    global_contrastive_loss,
    mean_over_workers,
    sum_over_workers,
)
from mets_ray.config import Config
from mets_ray.data import record_batches, training_batches
from mets_ray.errors import CheckpointError, MetsError
from mets_ray.folds import Selection
from mets_ray.metrics import retrieval_recall
from mets_ray.model import Mets
from mets_ray.optimization import autocast_for, build_optimizer, choose_precision, set_learning_rate
from mets_ray.plan import EpochPlan, RowGroup, plan_epoch, share, worker_blocks, worker_lanes
from mets_ray.report import LabelSet, PromptSet, apply_template, text_id
from mets_ray.resources import TrainShares
from mets_ray.schema import DatasetCard
from mets_ray.tasks import microvolts_to_millivolts, task_macro_auroc
from mets_ray.text_store import EmbeddingTable

_PROGRESS_EVERY_S = 0.5
_VALIDATION_BATCH = 256

Figures = dict[str, float | None]


@dataclass(frozen=True)
class TrainJob:
    """All that a worker needs; `table` refers to the embedding table in Ray's object store."""

    config: Config
    run: str
    dataset_uri: str
    card: DatasetCard
    train: Selection
    validation: Selection
    train_groups: tuple[RowGroup, ...]
    validation_groups: tuple[RowGroup, ...]
    tasks: dict[str, LabelSet]
    prompt_sets: dict[str, PromptSet]
    prompts: tuple[str, ...]
    text_fingerprint: str
    text_features: int
    earlier_folds: tuple[int, ...]
    table: Any
    shares: TrainShares
    progress: Any


@dataclass
class _State:
    """What moves while training, and what a checkpoint holds."""

    model: Mets
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    history: tuple[Figures, ...] = ()


def train_worker(settings: dict[str, TrainJob]) -> None:
    """Ray Train's loop function: train, validate and report a checkpoint after each epoch."""
    _quiet()
    job = settings["job"]
    config = job.config
    device = torch.device("cuda", torch.cuda.current_device()) if job.shares.gpus_per_worker else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(job.shares.worker_cpus)))
    table: EmbeddingTable = ray.get(job.table)
    state = _start(job, device)
    reporter = _Reporter(job.progress)
    with ThreadPoolExecutor(1) as starter:
        upcoming = _open_epoch(job, state.epoch, starter)
        for epoch in range(state.epoch, config.train.epochs):
            figures: Figures = {"epoch": float(epoch + 1)}
            figures |= _train_epoch(job, state, table, upcoming, device, reporter)
            if epoch + 1 < config.train.epochs:
                # The next epoch's first blocks are read while this one is validated and saved.
                upcoming = _open_epoch(job, epoch + 1, starter)
            figures |= _validate(job, state.model, table, device)
            state.epoch = epoch + 1
            state.history = (*state.history, figures)
            reporter.epoch(figures)
            _report(job, state, figures)


def _quiet() -> None:
    """Leave the console to the epoch lines: Ray tells at each start of a stream and at each report what it does."""
    for name, level in (
        ("", logging.WARNING),
        ("ray.data", logging.WARNING),
        ("ray.data._internal.progress", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)


def _start(job: TrainJob, device: torch.device) -> _State:
    """Fresh from the seed, from a bundle's weights, or from the last checkpoint of this run."""
    config = job.config
    torch.manual_seed(config.seed)
    precision = choose_precision(config.train, device)
    checkpoint = ray.train.get_checkpoint()
    if config.train.init_from and checkpoint is None:
        model = load_bundle(config.train.init_from).model.train()
        _same_shape(model, job)
    else:
        model = build_model(config, leads=len(job.card.leads), text_features=job.text_features)
    model.to(device=device, dtype=torch.float64 if precision == "float64" else torch.float32)
    # The first step rebuilds DDP's buckets, so a resumed run would sum in another order; this keeps them as they are.
    wrapped = prepare_model(model, move_to_device=False, parallel_strategy_kwargs={"find_unused_parameters": True})
    state = _State(
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(config.train, model),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
    )
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            bundle, saved = read_bundle(Path(folder)), read_trainer_state(Path(folder))
        _same_data(bundle.facts, job)
        model.load_state_dict(bundle.model.state_dict())
        state.optimizer.load_state_dict(saved["optimizer"])
        state.scaler.load_state_dict(saved["scaler"])
        state.epoch, state.history = saved["epoch"], bundle.facts.history
    return state


@dataclass(frozen=True)
class _EpochStream:
    """One epoch as this worker sees it; `row_counts` are the rows of every worker in a step."""

    plan: EpochPlan
    row_counts: list[int]
    batches: Iterator[dict[str, np.ndarray]]


def _open_epoch(job: TrainJob, epoch: int, starter: ThreadPoolExecutor) -> _EpochStream:
    """Plan an epoch and start reading it."""
    train = job.config.train
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    plan = plan_epoch(
        job.train_groups,
        seed=job.config.seed,
        epoch=epoch,
        batch_size=train.batch_size,
        lanes=train.lanes,
        block_rows=train.block_rows,
    )
    lanes = [worker_lanes(train.lanes, workers, worker) for worker in range(workers)]
    stream = training_batches(
        worker_blocks(plan, lanes[rank]),
        first_step=0,
        dataset_uri=job.dataset_uri,
        selection=job.train,
        template=job.config.text.template,
        shares=job.shares,
        streaming=job.config.text if job.config.text.mode == "streaming" else None,
    )
    first = starter.submit(next, stream, None)
    return _EpochStream(plan, [len(owned) * plan.rows_per_lane_step for owned in lanes], _from_first(first, stream))


def _from_first(
    first: "Future[dict[str, np.ndarray] | None]", stream: Iterator[dict[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    batch = first.result()
    if batch is not None:
        yield batch
        yield from stream


def _train_epoch(
    job: TrainJob,
    state: _State,
    table: EmbeddingTable,
    stream: _EpochStream,
    device: torch.device,
    reporter: "_Reporter",
) -> Figures:
    train, plan = job.config.train, stream.plan
    autocast = autocast_for(train, device)
    state.wrapped.train()
    losses, waited, embedded, began = 0.0, 0.0, 0, time.perf_counter()
    before, step = plan.epoch * plan.steps, -1
    for step, (batch, wait) in enumerate(_timed(stream.batches)):
        assert batch["step"][0] == step, f"the stream gave step {batch['step'][0]} where step {step} was due"
        waited += wait
        embedded += int(batch.get("embedded", np.zeros(1)).sum())
        signal_mv = microvolts_to_millivolts(batch["signal_uv"], state.model)
        features = batch["embedding"] if "embedding" in batch else table.lookup(batch["text_id"])
        text_features = torch.from_numpy(np.require(features, np.float16, ["C", "W"])).to(device)
        text_ids = torch.tensor(batch["text_id"], device=device)
        set_learning_rate(state.optimizer, train, (before + step) / (train.epochs * plan.steps))
        with autocast:
            ecg_embedding, text_embedding, logit_scale = state.wrapped(signal_mv, text_features)
        loss = global_contrastive_loss(
            ecg_embedding,
            text_embedding,
            logit_scale,
            text_ids,
            targets=job.config.loss.targets,
            row_counts=stream.row_counts,
        )
        global_loss = mean_over_workers(loss.item())
        if not math.isfinite(global_loss):
            raise _not_finite(state.model, batch, plan.epoch, step, global_loss)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        if train.gradient_clip_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), train.gradient_clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.model.clamp_logit_scale()
        losses += global_loss
        reporter.step(before + step + 1, global_loss)
    assert step + 1 == plan.steps, f"the stream ended after {step + 1} of {plan.steps} steps"
    seconds = time.perf_counter() - began
    return {
        "loss": losses / plan.steps,
        "logit_scale": float(state.model.logit_scale.detach()),
        "ecg_per_s": plan.steps * train.batch_size / mean_over_workers(seconds),
        "data_wait_share": mean_over_workers(waited / seconds),
        "lm_texts_embedded": sum_over_workers(embedded),
    }


def _validate(job: TrainJob, model: Mets, table: EmbeddingTable, device: torch.device) -> Figures:
    """Retrieval and zero-shot figures of the validation records, computed on rank 0 and known to all."""
    context = ray.train.get_context()
    groups = share(job.validation_groups, context.get_world_size(), context.get_world_rank())
    # Each worker's BatchNorm has seen other rows; rank 0's statistics are the ones that the checkpoint will hold.
    broadcast_buffers(model)
    model.eval()
    ecg: list[np.ndarray] = []
    ids: list[int] = []
    labels: list[list[str]] = []
    for batch in record_batches(
        groups, dataset_uri=job.dataset_uri, selection=job.validation, batch_size=_VALIDATION_BATCH, shares=job.shares
    ):
        with torch.no_grad():
            ecg.append(model.embed_ecg(microvolts_to_millivolts(batch["signal_uv"], model)).float().cpu().numpy())
        ids.extend(text_id(apply_template(job.config.text.template, report)) for report in batch["report"])
        labels.extend(list(codes) for codes in batch["labels"])
    mine = (np.concatenate(ecg) if ecg else None, ids, labels)
    figures: Figures = {"validation_macro_auroc": None}
    parts = [part for part in gather_objects(mine) if part[0] is not None]
    if parts and context.get_world_rank() == 0:
        figures |= _validation_figures(
            job,
            model,
            table,
            np.concatenate([part[0] for part in parts]),
            np.asarray([one for part in parts for one in part[1]], dtype=np.int64),
            [one for part in parts for one in part[2]],
        )
    known_to_all: Figures = broadcast_object(figures)
    return known_to_all


@torch.no_grad()
def _validation_figures(
    job: TrainJob, model: Mets, table: EmbeddingTable, ecg: np.ndarray, ids: np.ndarray, labels: list[list[str]]
) -> Figures:
    features = torch.from_numpy(table.lookup(ids)).to(model.text_projection.weight)
    recall = retrieval_recall(ecg, model.embed_text(features).float().cpu().numpy(), ids)
    figures: Figures = {f"{way}_recall_at_{k}": value for way, by_k in recall.items() for k, value in by_k.items()}
    prompt_set = job.prompt_sets[job.config.train.validation_prompt_set]
    by_task = task_macro_auroc(model, prompt_set, job.tasks, table, ecg_embeddings=ecg, labels=labels)
    scored = [value for value in by_task.values() if not math.isnan(value)]
    figures |= {f"validation_{task}": _number(value) for task, value in by_task.items()}
    figures["validation_macro_auroc"] = sum(scored) / len(scored) if scored else None
    return figures


def selection_score(figures: Figures) -> float:
    """What the best checkpoint is chosen by: AUROC; without labels recall@10 both ways; without validation the last."""
    auroc = figures.get("validation_macro_auroc")
    if auroc is not None:
        return auroc
    recalls = [figures.get(f"{way}_recall_at_10") for way in ("ecg_to_text", "text_to_ecg")]
    known = [recall for recall in recalls if recall is not None]
    return sum(known) / len(known) if known else figures["epoch"] or 0.0


def _report(job: TrainJob, state: _State, figures: Figures) -> None:
    """Every worker reports (it is a barrier); rank 0 brings the checkpoint."""
    metrics = {key: value for key, value in figures.items() if value is not None}
    metrics["selection_score"] = selection_score(figures)
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        folder = Path(tempfile.mkdtemp(prefix="mets_ray_checkpoint_"))
        trainer_state = {
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "epoch": state.epoch,
        }
        write_bundle(folder, _bundle(job, state, figures), trainer_state)
        checkpoint = Checkpoint.from_directory(str(folder))
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_dir_name=f"checkpoint-{state.epoch:05d}",
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
    )


def _bundle(job: TrainJob, state: _State, figures: Figures) -> Bundle:
    config, card = job.config, job.card
    ids = np.asarray(sorted(text_id(prompt) for prompt in job.prompts), dtype=np.int64)
    table: EmbeddingTable = ray.get(job.table)
    facts = BundleFacts(
        run=job.run,
        sampling_rate_hz=card.sampling_rate_hz,
        duration_s=card.duration_s,
        leads=card.leads,
        text_model=config.text.model,
        text_pooling=config.text.pooling,
        text_max_length=config.text.max_length,
        text_fingerprint=job.text_fingerprint,
        text_features=job.text_features,
        dataset_source=card.source,
        dataset_sha256=card.content_sha256,
        synthetic=card.synthetic,
        train_folds=config.folds.train,
        validation=config.folds.validation,
        earlier_folds=job.earlier_folds,
        prompt_sets=job.prompt_sets,
        metrics=figures,
        history=state.history,
    )
    return Bundle(state.model, config, facts, EmbeddingTable.build(ids, table.lookup(ids)))


def _timed(stream: Iterator[dict[str, np.ndarray]]) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """Batches with the seconds that the loop waited for each."""
    while True:
        began = time.perf_counter()
        batch = next(stream, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def _same_shape(model: Mets, job: TrainJob) -> None:
    expected = build_model(job.config, leads=len(job.card.leads), text_features=job.text_features).state_dict()
    found = model.state_dict()
    other = [key for key in expected if key not in found or found[key].shape != expected[key].shape]
    if other:
        shape = tuple(found[other[0]].shape) if other[0] in found else "absent"
        raise CheckpointError(
            f"`{other[0]}` of `train.init_from` is {shape}, this run needs {tuple(expected[other[0]].shape)}",
            hint="use the encoder settings and the LM that the bundle was trained with",
        )


def _same_data(facts: BundleFacts, job: TrainJob) -> None:
    for what, before, now in (
        ("data set", facts.dataset_sha256, job.card.content_sha256),
        ("language model", facts.text_fingerprint, job.text_fingerprint),
    ):
        if before != now:
            raise CheckpointError(
                f"the {what} of this run had fingerprint {before[:16]}, now it has {now[:16]}",
                hint="start a new run with train.init_from",
            )


def _not_finite(model: Mets, batch: dict[str, np.ndarray], epoch: int, step: int, loss: float) -> MetsError:
    norm = math.sqrt(sum(float(value.detach().double().square().sum()) for value in model.parameters()))
    return MetsError(
        f"the loss is {loss} at epoch {epoch + 1}, step {step}; the weights' norm is {norm:.4g}; no step was taken",
        where=f"this worker's records {', '.join(batch['record_id'][:64].tolist())}",
        hint="lower train.learning_rate, set train.gradient_clip_norm, or look at these records",
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


class _Reporter:
    """Tells the driver how far rank 0 is, at most twice a second, without waiting for an answer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue if ray.train.get_context().get_world_rank() == 0 else None
        self._told = 0.0

    def step(self, step: int, loss: float) -> None:
        if self._queue is not None and time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._queue.actor.put_nowait.remote({"step": step, "loss": loss})

    def epoch(self, figures: Figures) -> None:
        if self._queue is not None:
            self._queue.actor.put_nowait.remote({"figures": figures})
