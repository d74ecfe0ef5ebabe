"""What every training worker runs: the planned stream → loss over the global batch → step, and when to save."""

import faulthandler
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray
import ray.train
import torch
from torch import Tensor, nn

from mets_ray import storage
from mets_ray.accumulation import LossOf, forward_loss
from mets_ray.augment import augmented, draw_views
from mets_ray.batch_log import write_steps
from mets_ray.collectives import (
    broadcast_object,
    gather_objects,
    gather_rows_no_grad,
    global_contrastive_loss,
    global_statement_loss,
    is_lost_peer,
    mean_over_workers,
    num_workers,
    sum_over_workers,
    sums_over_workers,
    worker_rank,
)
from mets_ray.data import training_batches
from mets_ray.errors import MetsError
from mets_ray.failures import Failure, record_failure, repeated_failure
from mets_ray.optimization import autocast_for, set_learning_rate
from mets_ray.plan import EpochPlan, plan_epoch, worker_blocks, worker_lanes
from mets_ray.shard_reader import read_ahead
from mets_ray.statements import ReportStatements
from mets_ray.tasks import microvolts_to_millivolts, signal_tensor
from mets_ray.text_store import EmbeddingTable
from mets_ray.train_state import Figures, Running, State, TrainJob, parameter_norm, report_checkpoint, start_state
from mets_ray.validation import validate

_PROGRESS_EVERY_S = 0.5
_LOOK_FOR_PREEMPTION_EVERY_S = 5.0

T = TypeVar("T")


def train_worker(settings: dict[str, TrainJob]) -> None:
    """Ray Train's loop function. An error that came back at the same step ends it early; `train.fit` then raises it."""
    _quiet()
    job = settings["job"]
    start = broadcast_object(uuid.uuid4().hex[:8])
    folder_uri = failures_uri(job)
    if broadcast_object(repeated_failure(folder_uri) if worker_rank() == 0 else None) is not None:
        return
    state: State | None = None
    watchdog = _Watchdog(job.config.train.step_timeout_s)
    try:
        device = _device(job)
        state = start_state(job, device)
        _train(job, state, device, watchdog)
    except Exception as error:
        if not is_lost_peer(error):
            epoch, step = (state.epoch, state.step) if state is not None else (0, 0)
            failure = Failure.of(error, start=start, worker=worker_rank(), epoch=epoch, step=step)
            with suppress(MetsError):  # the error itself is what the job must end with
                record_failure(failure, folder_uri)
        raise
    finally:
        watchdog.stop()


def _device(job: TrainJob) -> torch.device:
    if job.shares.gpus_per_worker:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(max(1, int(job.shares.worker_cpus)))
    return torch.device("cpu")


def failures_uri(job: TrainJob) -> str:
    """Where this attempt's failures are written; a job that is started again begins without any."""
    return storage.join(job.run_uri, "failures", job.attempt)


def _train(job: TrainJob, state: State, device: torch.device, watchdog: "_Watchdog") -> None:
    config = job.config
    table: EmbeddingTable = ray.get(job.table)
    statements: ReportStatements | None = ray.get(job.statements)
    reporter = _Reporter(job.progress)
    reporter.started(state)
    saving = _SaveClock(job)
    readers = ThreadPoolExecutor(2)
    try:
        upcoming = _open_epoch(job, state.epoch, state.step, readers, device)
        while state.epoch < config.train.epochs:
            figures: Figures = {"epoch": float(state.epoch + 1)}
            figures |= _train_epoch(job, state, table, statements, upcoming, device, reporter, watchdog, saving)
            if state.epoch + 1 < config.train.epochs:
                # The next epoch's first blocks are read while this one is validated and saved.
                upcoming = _open_epoch(job, state.epoch + 1, 0, readers, device)
            figures |= validate(job, state.model, table, statements, watchdog.still_alive)
            state.epoch, state.step, state.running = state.epoch + 1, 0, Running()
            state.history = (*state.history, figures)
            reporter.epoch(figures)
            report_checkpoint(job, state)
            saving.saved()
            watchdog.still_alive()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)  # a read that hangs must not keep an error back


def _quiet() -> None:
    """Leave the console to the epoch lines: Ray tells at each start of a stream and at each report what it does."""
    for name, level in (
        ("", logging.WARNING),
        ("ray.data", logging.WARNING),
        ("ray.data._internal.progress", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class _EpochStream:
    """The rest of one epoch as this worker sees it; `row_counts` are the rows of every worker in a step."""

    plan: EpochPlan
    row_counts: list[int]
    batches: Iterator[dict[str, Any]]


def _open_epoch(
    job: TrainJob, epoch: int, first_step: int, readers: ThreadPoolExecutor, device: torch.device
) -> _EpochStream:
    """Plan an epoch and start reading it from `first_step` on."""
    train = job.config.train
    plan = plan_epoch(
        job.train_groups,
        seed=job.config.seed,
        epoch=epoch,
        batch_size=train.batch_size,
        lanes=train.lanes,
        block_rows=train.block_rows,
    )
    lanes = [worker_lanes(train.lanes, num_workers(), worker) for worker in range(num_workers())]
    row_counts = [len(owned) * plan.rows_per_lane_step for owned in lanes]
    first_row = sum(row_counts[: worker_rank()])
    stream = training_batches(
        worker_blocks(plan, lanes[worker_rank()], first_step=first_step),
        first_step=first_step,
        dataset_uri=job.dataset_uri,
        selection=job.train,
        template=job.config.text.template,
        shares=job.shares,
        streaming=job.config.text if job.config.text.mode == "streaming" else None,
    )

    def made_ready(batch: dict[str, Any]) -> dict[str, Any]:
        signal = signal_tensor(batch["signal_uv"], pinned=device.type == "cuda")
        views = draw_views(
            job.config.augment,
            range(first_row, first_row + len(signal)),
            batch_size=train.batch_size,
            leads=signal.shape[1],
            samples=signal.shape[2],
            seed=job.config.seed,
            epoch=epoch,
            step=int(batch["step"][0]),
        )
        return {**batch, "signal": signal, "views": views}

    ready = map(made_ready, stream)
    return _EpochStream(plan, row_counts, read_ahead(ready, readers))


def _train_epoch(
    job: TrainJob,
    state: State,
    table: EmbeddingTable,
    statements: ReportStatements | None,
    stream: _EpochStream,
    device: torch.device,
    reporter: "_Reporter",
    watchdog: "_Watchdog",
    saving: "_SaveClock",
) -> Figures:
    train, plan, running = job.config.train, stream.plan, state.running
    autocast = autocast_for(train, device)
    seen = _BatchLog(job)
    state.wrapped.train()
    began = time.perf_counter()
    for batch, waited_s in _timed(stream.batches):
        step = state.step
        assert batch["step"][0] == step, f"the stream gave step {batch['step'][0]} where step {step} was due"
        signal_mv = augmented(microvolts_to_millivolts(batch["signal"], state.model), batch["views"])
        text_features, loss_of = _text(job, batch, table, statements, stream.row_counts, device)
        done = plan.epoch * plan.steps + step
        set_learning_rate(state.optimizer, train, done / (train.epochs * plan.steps))
        loss, backward = forward_loss(
            state.wrapped,
            signal_mv,
            text_features,
            loss_of,
            rows_per_part=train.micro_batch_size,
            autocast=autocast,
            row_counts=stream.row_counts,
        )
        global_loss, save, look = _agree(loss.item(), saving.due(step + 1))
        if not math.isfinite(global_loss):
            raise _not_finite(state.model, batch, plan.epoch, step, global_loss)
        state.optimizer.zero_grad(set_to_none=True)
        backward(state.scaler)
        _take_step(state, train.gradient_clip_norm)
        seen.add(step, batch["record_id"])

        state.step = step + 1
        running.losses += global_loss
        running.waited_s += waited_s
        running.embedded += float(batch.get("embedded", np.zeros(1)).sum())
        reporter.step(done + 1, global_loss)
        watchdog.still_alive()
        if (save or (look and saving.is_preempted())) and state.step < plan.steps:
            running.seconds, began = running.seconds + time.perf_counter() - began, time.perf_counter()
            seen.write(plan.epoch)
            report_checkpoint(job, state)
            saving.saved()
    assert state.step == plan.steps, f"the stream ended after {state.step} of {plan.steps} steps"
    seen.write(plan.epoch)
    seconds = running.seconds + time.perf_counter() - began
    return {
        "loss": running.losses / plan.steps,
        "logit_scale": float(state.model.logit_scale.detach()),
        "ecg_per_s": plan.steps * train.batch_size / mean_over_workers(seconds),
        "data_wait_share": mean_over_workers(running.waited_s / seconds),
        "data_wait_ms_per_step": 1000 * mean_over_workers(running.waited_s) / plan.steps,
        "lm_texts_embedded": sum_over_workers(running.embedded),
    }


def _text(
    job: TrainJob,
    batch: dict[str, np.ndarray],
    table: EmbeddingTable,
    statements: ReportStatements | None,
    row_counts: list[int],
    device: torch.device,
) -> tuple[Tensor, LossOf]:
    """Features of the texts that the batch is compared with, and the loss: this worker's share of the global one."""
    targets = job.config.loss.targets
    text_ids = torch.tensor(batch["text_id"], device=device)
    if statements is not None:
        # Every worker embeds the statements of all: they are few, and so no embedding has to travel.
        columns = statements.columns(gather_rows_no_grad(text_ids, row_counts).cpu().numpy())
        positives = torch.from_numpy(statements.positives(batch["text_id"], columns)).to(device)
        features = table.lookup(columns)

        def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            return global_statement_loss(ecg, text, scale, bias, positives, rows=sum(row_counts))
    else:
        features = batch["embedding"] if "embedding" in batch else table.lookup(batch["text_id"])

        def loss_of(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
            return global_contrastive_loss(ecg, text, scale, text_ids, targets=targets, row_counts=row_counts)

    return torch.from_numpy(np.require(features, np.float16, ["C", "W"])).to(device), loss_of


def _take_step(state: State, clip_norm: float) -> None:
    if clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.model.clamp_logit_scale()


def _agree(loss: float, due: tuple[bool, bool]) -> tuple[float, bool, bool]:
    """(mean loss, save now, look for a preemption notice now), the same on every worker, in one round."""
    total, save, look = sums_over_workers([loss, *map(float, due)])
    return total / num_workers(), save > 0, look > 0


class _SaveClock:
    """When to save within an epoch. Rank 0's clock decides for all, since every worker must take part."""

    def __init__(self, job: TrainJob) -> None:
        train = job.config.train
        self._steps = train.checkpoint_every_steps
        self._seconds = math.inf if train.checkpoint_every_minutes is None else 60 * train.checkpoint_every_minutes
        self._saved_at = self._looked_at = time.monotonic()
        self._known_notice = False

    def due(self, step: int) -> tuple[bool, bool]:
        """(a checkpoint, a look for a preemption notice) after `step` steps of this epoch; other ranks ask for none."""
        if worker_rank() != 0:
            return False, False
        now = time.monotonic()
        look = now - self._looked_at > _LOOK_FOR_PREEMPTION_EVERY_S
        if look:
            self._looked_at = now
        by_steps = self._steps is not None and step % self._steps == 0
        return by_steps or now - self._saved_at > self._seconds, look

    def is_preempted(self) -> bool:
        """Whether a node has been given notice since the last look; a barrier, so not asked at every step."""
        notice = ray.train.get_preemption_info() is not None
        new, self._known_notice = notice and not self._known_notice, notice
        return new

    def saved(self) -> None:
        self._saved_at = time.monotonic()


class _BatchLog:
    """The record ids of the steps since the last checkpoint, with `train.log_batches`."""

    def __init__(self, job: TrainJob) -> None:
        self._run_uri = job.run_uri if job.config.train.log_batches else None
        self._steps: dict[int, list[str]] = {}

    def add(self, step: int, record_ids: np.ndarray) -> None:
        if self._run_uri is not None:
            self._steps[step] = [name for part in gather_objects(record_ids.tolist()) for name in part]

    def write(self, epoch: int) -> None:
        if self._run_uri is not None and self._steps and worker_rank() == 0:
            write_steps(self._run_uri, epoch, self._steps)
        self._steps = {}


class _Watchdog:
    """Ends this process, with a trace of its threads on stderr, when a step takes longer than `timeout_s`.

    It is a C thread of the interpreter: it works while another one holds the interpreter for ever. A process that is
    stopped from outside cannot end itself; then the others wait for it in vain, end, and Ray replaces all.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._stderr = os.dup(2)  # Ray puts an object of its own in sys.stderr's place
        self.still_alive()

    def still_alive(self) -> None:
        faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._stderr)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)


def _timed(stream: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Items with the seconds that the loop waited for each."""
    while True:
        began = time.perf_counter()
        item = next(stream, None)
        if item is None:
            return
        yield item, time.perf_counter() - began


def _not_finite(model: nn.Module, batch: dict[str, np.ndarray], epoch: int, step: int, loss: float) -> MetsError:
    return MetsError(
        f"the loss is {loss} at epoch {epoch + 1}, step {step}; the weights' norm is {parameter_norm(model):.4g}; "
        "no step was taken",
        where=f"this worker's records {', '.join(batch['record_id'][:64].tolist())}",
        hint="lower train.learning_rate, set train.gradient_clip_norm, or look at these records",
    )


class _Reporter:
    """Tells the driver how far rank 0 is, at most twice a second, without waiting for an answer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue if worker_rank() == 0 else None
        self._told = 0.0

    def _tell(self, what: dict[str, Any]) -> None:
        if self._queue is not None:
            self._queue.actor.put_nowait.remote(what)

    def started(self, state: State) -> None:
        self._tell({"started": {"epoch": state.epoch, "step": state.step, "workers": num_workers()}})

    def step(self, step: int, loss: float) -> None:
        if time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._tell({"step": step, "loss": loss})

    def epoch(self, figures: Figures) -> None:
        self._tell({"figures": figures})
