"""One epoch: the planned stream, the loss over the global batch, the step."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mets_ray.dataset.plan import EpochPlan, worker_blocks, worker_lanes
from mets_ray.dataset.shard_reader import read_ahead
from mets_ray.errors import MetsError
from mets_ray.model.augment import BatchPlace, augmented, draw_views
from mets_ray.model.mets import microvolts_to_millivolts, signal_tensor
from mets_ray.model.optimization import autocast_for, set_learning_rate
from mets_ray.pipelines.stream import training_batches
from mets_ray.training.batch_log import BatchLog
from mets_ray.training.collectives import (
    mean_over_workers,
    num_workers,
    sum_over_workers,
    sums_over_workers,
    worker_rank,
)
from mets_ray.training.grad_cache import forward_loss
from mets_ray.training.job import TrainJob
from mets_ray.training.retimed import with_some_retimed
from mets_ray.training.state import Figures, State, parameter_norm, report_checkpoint
from mets_ray.training.texts import Texts
from mets_ray.training.watch import Due, Watch, timed


@dataclass(frozen=True)
class EpochStream:
    """The rest of one epoch for this worker; `row_counts` are the rows of each worker in a step.

    last_block: the step at which the last block begins. All that is read for the epoch has been asked for by then.
    """

    plan: EpochPlan
    row_counts: list[int]
    last_block: int
    batches: Iterator[dict[str, Any]]


def open_epoch(
    job: TrainJob, texts: Texts, cursor: tuple[int, int], readers: ThreadPoolExecutor, device: torch.device
) -> EpochStream:
    """Plan an epoch and start reading it. cursor: the epoch and its first step."""
    train, augment, (epoch, first_step) = job.config.train, job.config.augment, cursor
    plan = job.plan(epoch)
    lanes = [worker_lanes(train.lanes, num_workers(), worker) for worker in range(num_workers())]
    row_counts = [len(owned) * plan.rows_per_lane_step for owned in lanes]
    first_row = sum(row_counts[: worker_rank()])
    blocks = worker_blocks(plan, lanes[worker_rank()], first_step=first_step)
    stream = training_batches(
        blocks,
        first_step=first_step,
        dataset=job.dataset,
        selection=job.train,
        template=job.config.text.template if job.layer_decay is None else None,
        shares=job.shares,
        streaming=job.config.text if job.config.text.mode == "streaming" else None,
    )

    def made_ready(batch: dict[str, Any]) -> dict[str, Any]:
        place = BatchPlace(job.config.seed, epoch, int(batch["step"][0]), train.batch_size)
        if augment.retimed and texts.statements is not None and job.layer_decay is None:
            rate = job.dataset.card.sampling_rate_hz
            batch = with_some_retimed(
                batch, texts.statements, share=augment.retimed, place=place, first_row=first_row, sampling_rate_hz=rate
            )
        signal = signal_tensor(batch["signal_uv"], pinned=device.type == "cuda")
        rows = range(first_row, first_row + len(signal))
        views = draw_views(augment, place, rows, leads=job.dataset.card.leads, samples=signal.shape[2])
        return {**batch, "signal": signal, "views": views}

    ready = map(made_ready, stream)
    last_block = blocks[-1].first_step if blocks else plan.steps
    return EpochStream(plan, row_counts, last_block, read_ahead(ready, readers))


def train_epoch(
    job: TrainJob, texts: Texts, state: State, stream: EpochStream, watch: Watch, open_next: Callable[[], None]
) -> Figures | None:
    """Train on the rest of an epoch, with checkpoints when `watch.saving` says so.

    open_next: called once, when the last block begins, to start reading what follows.

    Returns the whole epoch's figures, or None if the job was told to stop: then what was learnt is saved, also after
    the last step. Raises MetsError if the loss is not finite.
    """
    train, plan, running = job.config.train, stream.plan, state.running
    autocast = autocast_for(train, state.device)
    seen = BatchLog(job)
    state.wrapped.train()
    began, opened = time.perf_counter(), False
    for batch, waited_s in timed(stream.batches):
        step = state.step
        if step >= stream.last_block and not opened:
            opened = True
            open_next()
        assert batch["step"][0] == step, f"the stream returned step {batch['step'][0]}, but step {step} was due"
        signal_mv = augmented(microvolts_to_millivolts(batch["signal"], state.model), batch["views"])
        text_features, loss_of = texts.batch_loss(
            batch, loss=job.config.loss, row_counts=stream.row_counts, device=state.device, views=batch["views"]
        )
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
        global_loss, due = _agree(loss.item(), watch.saving.due(step + 1))
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
        watch.reporter.step(done + 1, global_loss)
        watch.watchdog.still_alive()
        if due.leave:
            return None
        # The end of an epoch is saved after its validation. Who is told to go may not have the time for that.
        at_once = due.stop or (due.look and watch.saving.is_preempted())
        if at_once or (due.save and state.step < plan.steps):
            running.seconds, began = running.seconds + time.perf_counter() - began, time.perf_counter()
            seen.write(plan.epoch)
            report_checkpoint(job, texts, state)
            watch.saving.saved()
        if due.stop:
            return None
    if not opened:  # nothing was left of this epoch
        open_next()
    assert state.step == plan.steps, f"the stream ended after {state.step} of {plan.steps} steps"
    seen.write(plan.epoch)
    running.seconds += time.perf_counter() - began
    return _figures(state, steps=plan.steps, records=plan.steps * train.batch_size)


def _figures(state: State, *, steps: int, records: int) -> Figures:
    """The figures of a whole epoch, over all workers."""
    running = state.running
    return {
        "loss": running.losses / steps,
        "logit_scale": float(state.model.logit_scale.detach()),
        "ecg_per_s": records / mean_over_workers(running.seconds),
        "data_wait_share": mean_over_workers(running.waited_s / running.seconds),
        "data_wait_ms_per_step": 1000 * mean_over_workers(running.waited_s) / steps,
        "lm_texts_embedded": sum_over_workers(running.embedded),
    }


def _take_step(state: State, clip_norm: float) -> None:
    if clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.model.clamp_logit_scale()


def _agree(loss: float, due: Due) -> tuple[float, Due]:
    """(mean loss, what is due), the same on every worker, in one all-reduce."""
    total, *dues = sums_over_workers([loss, *map(float, due)])
    return total / num_workers(), Due(*(one > 0 for one in dues))


def _not_finite(model: nn.Module, batch: dict[str, np.ndarray], epoch: int, step: int, loss: float) -> MetsError:
    return MetsError(
        f"the loss is {loss} at epoch {epoch + 1}, step {step}; the weights' norm is {parameter_norm(model):.4g}; "
        "no step was taken",
        where=f"this worker's records {', '.join(batch['record_id'][:64].tolist())}",
        hint="lower train.learning_rate, set train.gradient_clip_norm, or check these records",
    )
