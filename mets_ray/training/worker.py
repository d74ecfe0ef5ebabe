"""The loop of every training worker: train an epoch, validate it, save a checkpoint; until it is told to stop."""

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import ray
import ray.train
import torch

from mets_ray.errors import MetsError
from mets_ray.training.collectives import broadcast_object, is_lost_peer, worker_rank
from mets_ray.training.directions import learn_directions
from mets_ray.training.epoch import EpochStream, open_epoch, train_epoch
from mets_ray.training.failures import Failure, record_failure, repeated_failure
from mets_ray.training.job import TrainJob
from mets_ray.training.state import Figures, Running, State, report_checkpoint, start_state
from mets_ray.training.texts import Texts
from mets_ray.training.validation import validate
from mets_ray.training.watch import Reporter, SaveClock, Watch, Watchdog


def train_worker(settings: dict[str, TrainJob]) -> None:
    """Ray Train's loop function. Returns early if an error has repeated at the same step, or the run is stopped before
    it has texts; `launch` then raises it."""
    _quiet()
    job = settings["job"]
    start = broadcast_object(uuid.uuid4().hex[:8])
    folder_uri = job.failures_uri
    if broadcast_object(repeated_failure(folder_uri) if worker_rank() == 0 else None) is not None:
        return
    # Before the watchdog starts: the language model may take its time.
    given = ray.get(job.messages.texts.remote())
    if not given:
        return
    state: State | None = None
    watchdog = Watchdog(job.config.train.step_timeout_s)
    readers = ThreadPoolExecutor(2)
    try:
        texts: Texts = ray.get(given[0])
        device = _device(job)
        # A new run's first blocks are read while the model is built.
        upcoming = [open_epoch(job, texts, (0, 0), readers, device)] if ray.train.get_checkpoint() is None else []
        state = start_state(job, texts, device)
        _train(job, texts, state, Watch(Reporter(job.messages), watchdog, SaveClock(job)), readers, upcoming)
    except Exception as error:
        if not is_lost_peer(error):
            epoch, step = (state.epoch, state.step) if state is not None else (0, 0)
            failure = Failure.of(error, start=start, worker=worker_rank(), epoch=epoch, step=step)
            with suppress(MetsError):  # the job must end with the original error
                record_failure(failure, folder_uri)
        raise
    finally:
        readers.shutdown(wait=False, cancel_futures=True)  # a read that hangs must not hold back an error
        watchdog.stop()


def _device(job: TrainJob) -> torch.device:
    if job.shares.gpus_per_worker:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(max(1, int(job.shares.worker_cpus)))
    return torch.device("cpu")


def _train(
    job: TrainJob,
    texts: Texts,
    state: State,
    watch: Watch,
    readers: ThreadPoolExecutor,
    upcoming: list[EpochStream],
) -> None:
    """Train from the state's cursor on. upcoming: the epoch that it is in, if it has been opened already."""
    epochs = job.config.train.epochs
    watch.reporter.started(state)

    def open_next() -> None:
        # The next epoch's first blocks are read while this one ends, is validated and saved.
        if state.epoch + 1 < epochs:
            upcoming.append(open_epoch(job, texts, (state.epoch + 1, 0), readers, state.device))

    if state.epoch < epochs and not upcoming:
        upcoming.append(open_epoch(job, texts, (state.epoch, state.step), readers, state.device))
    while state.epoch < epochs:
        # What was trained so far is saved, so this is where a stop between two epochs costs nothing.
        if broadcast_object(watch.saving.stop()) is not None:
            break
        trained = train_epoch(job, texts, state, upcoming.pop(), watch, open_next)
        if trained is None:
            break
        figures: Figures = {"epoch": float(state.epoch + 1), **trained}
        learn_directions(job, state.model, texts, watch.watchdog.still_alive, state.epoch)
        validated, state.lead_sets = validate(job, state.model, texts, watch.watchdog.still_alive, state.epoch)
        figures |= validated
        state.epoch, state.step, state.running = state.epoch + 1, 0, Running()
        state.history = (*state.history, figures)
        watch.reporter.epoch(figures)
        report_checkpoint(job, texts, state)
        if texts.anchor_ids is not None:
            state.model.anchor_directions = None  # the next step's weights will have others
        watch.saving.saved()
        watch.watchdog.still_alive()
    if state.epoch < epochs:
        watch.reporter.stopped(state)


def _quiet() -> None:
    """Keep the console for the epoch lines: Ray logs at each start of a stream and at each report."""
    for name, level in (
        ("", logging.WARNING),
        ("ray.data", logging.WARNING),
        ("ray.data._internal.progress", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
