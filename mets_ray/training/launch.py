"""Ray Train's side of a run: start the group of workers, restart it when a worker is lost, and report on it."""

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.torch import TorchConfig, TorchTrainer

from mets_ray import stops, storage
from mets_ray.cluster.ray_data import own_error
from mets_ray.console import say
from mets_ray.errors import MetsError
from mets_ray.training.collectives import is_lost_peer
from mets_ray.training.failures import repeated_failure
from mets_ray.training.job import TrainJob
from mets_ray.training.messages import Stop
from mets_ray.training.progress import TrainConsole
from mets_ray.training.worker import failures_uri, train_worker


def launch(job: TrainJob, lease: storage.Lease, meanwhile: Callable[[], None]) -> tuple[Result, int]:
    """Train with `worker.train_worker`. Returns Ray Train's result and the number of times the group was restarted.

    lease: of the run's folder. meanwhile: called while the workers start; what it raises ends the run. Raises the
    worker's own error if it repeats at the same step, or if there are more failures than `train.max_failures` allows.
    A KeyboardInterrupt is raised again once the workers have saved a checkpoint and ended, or after
    `train.stop_within_s`; without a checkpoint if the lease is lost.
    """
    trainer = _trainer(job)
    console = TrainConsole(job)
    with console:
        try:
            result = _fit(trainer, job, lease, meanwhile)
        except TrainingFailedError as error:
            raise own_error(error) from error
    # Workers that find a repeated failure end without an error: on an error Ray would restart them.
    if failure := repeated_failure(failures_uri(job)):
        raise failure.as_error()
    if result.error is not None:
        raise own_error(result.error) from result.error
    return result, console.restarts


def _fit(trainer: TorchTrainer, job: TrainJob, lease: storage.Lease, meanwhile: Callable[[], None]) -> Result:
    # In a thread: in the main one, Ray Train takes Ctrl-C for itself, and ends the workers without a checkpoint.
    done: Future[Result] = Future()

    def fit() -> None:
        try:
            done.set_result(trainer.fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fit, name="fit", daemon=True).start()
    try:
        try:
            meanwhile()
        except Exception:
            job.messages.stop.remote("leave")
            with suppress(Exception):
                done.exception(timeout=job.config.train.stop_within_s)
            raise
        return done.result()
    except KeyboardInterrupt:
        stops.hear()
        lease.keep()  # until all that writes to the folder has ended
        how: Stop = "leave" if lease.is_lost else "save"
        limit_s = job.config.train.stop_within_s
        say(f"stopping within {limit_s:g} s" + (": the workers save a checkpoint" if how == "save" else ""))
        job.messages.stop.remote(how)
        with suppress(Exception, KeyboardInterrupt):  # Ctrl-C again ends the wait
            done.exception(timeout=limit_s)
        if not done.done():
            say("the workers have not stopped; what was learnt since the last checkpoint is lost")
            raise stops.StillBusyError from None
        lease.keep(False)
        if how == "save":
            say(f"train.resume={job.run_uri} continues this run")
        raise


def _trainer(job: TrainJob) -> TorchTrainer:
    train = job.config.train
    filesystem, path = storage.arrow_filesystem(job.run_uri.rpartition("/")[0])
    gpus = job.shares.gpus_per_worker
    # If the only worker is suspended, no other worker notices: Ray's health check must time out.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(train.step_timeout_s)
    if gpus and train.hang_detector != "off":
        os.environ |= {"RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "1", "RAY_TRAIN_NCCL_RAS_ACTION": train.hang_detector}
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=math.ceil(train.step_timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=train.num_workers,  # type: ignore[arg-type]
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": job.shares.worker_cpus} | ({"GPU": gpus} if gpus else {}) | train.resources,
            elastic_resize_monitor_interval_s=train.resize_every_s,  # type: ignore[call-arg]
        ),
        run_config=RunConfig(
            name=job.run,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=train.max_failures,
                max_preemption_failures=-1,  # type: ignore[call-arg]  # what the cloud takes away did not fail
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=train.keep_checkpoints,
                checkpoint_score_attribute="selection_score",
                checkpoint_score_order="max",
            ),
            callbacks=[_TellFailures(job.messages)],  # type: ignore[list-item]
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


class _TellFailures(UserCallback):
    """Runs in Ray Train's controller: tells the driver which worker was lost and why."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        told = {rank: _in_one_line(error) for rank, error in sorted(worker_exceptions.items())}
        self._messages.tell.remote({"failed": told})


def _in_one_line(error: Exception) -> str:
    cause = own_error(error)
    if isinstance(cause, MetsError):
        return cause.fact
    if is_lost_peer(cause):
        return "its connection to another worker broke"
    kind = type(cause).__name__
    if kind == "WorkerHealthCheckFailedError":  # internal to Ray; its text is thirty lines long
        return "its process or its node died, or stopped responding"
    return f"{kind}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"[:200]
