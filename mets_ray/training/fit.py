"""Contrastive pretraining on Ray Train: `fit()` plans and starts it, `train_worker` is what every worker runs."""

import math
import os
import statistics
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.train import (
    Checkpoint,
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
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mets_ray import storage
from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_error
from mets_ray.cluster.shares import TrainShares, check_lm_fits, train_shares
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.plan import plan_epoch
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError, DatasetError, MetsError
from mets_ray.model.bundle import publish_bundle, read_facts
from mets_ray.pictures.training import draw_training
from mets_ray.pipelines.lm_actors import EmbeddedTexts, embed_texts, store_uri
from mets_ray.pipelines.texts import report_statements, report_texts
from mets_ray.tasks.prompt_files import read_prompt_set
from mets_ray.tasks.prompt_sets import PACKAGED_PROMPT_SETS, PromptSet, prompt_texts
from mets_ray.tasks.questions import check_prompts, dataset_tasks
from mets_ray.text.statements import ReportStatements, one_spelling
from mets_ray.training.collectives import is_lost_peer
from mets_ray.training.failures import repeated_failure
from mets_ray.training.progress import TrainConsole
from mets_ray.training.run_folder import earlier_folds_of, open_run_folder
from mets_ray.training.state import TrainJob
from mets_ray.training.tracking import check_trackers
from mets_ray.training.worker import failures_uri, train_worker

MOST_ANCHORS = 4096
"""Statements that a bundle keeps the LM features of: 6 MB at 768 features. The 12SL program has some hundred."""


@dataclass(frozen=True)
class Pretrained:
    """What a finished pretraining leaves behind."""

    run_uri: str
    bundle_uri: str
    picture_uri: str
    history: tuple[dict[str, float | None], ...]
    epoch: int  # the bundle's
    reports_embedded: int
    prompts_embedded: int
    restarts: int
    notice: str


def fit(config: Config, dataset_uri: str) -> Pretrained:
    """Pretrain on a prepared data set; the epoch of `train.choose` is published as `<run>/bundle`.

    Raises DatasetError for a patient on two sides, ConfigError for what cannot fit, CheckpointError for a resume that
    does not match, and the worker's own MetsError when training fails.
    """
    check_trackers(config)
    if config.text.unit == "statement" and config.text.mode == "streaming":
        raise ConfigError(
            "`text.unit` is statement and `text.mode` is streaming, which embeds whole reports",
            hint="set text.mode=cached: statements repeat, so that even of a million reports they are few",
        )
    dataset = PreparedDataset.open(dataset_uri)
    card = dataset.card
    if not card.has_reports:
        raise DatasetError(
            f"`{dataset_uri}` has no reports: `{card.source}` is for evaluation", hint="train on a source with reports"
        )
    train, validation, test = selections(config.folds.train, config.folds.validation, config.folds.test)
    _check_folds(config, dataset, train, validation, test)
    prompt_sets = _prompt_sets(config)
    tasks = dataset_tasks(card.source)
    check_prompts(prompt_sets[config.train.validation_prompt_set], tasks)
    # All that can be refused is refused before the LM runs and before a run folder is made.
    train_groups = tuple(dataset.row_groups(train))
    steps = plan_epoch(
        train_groups,
        seed=config.seed,
        epoch=0,
        batch_size=config.train.batch_size,
        lanes=config.train.lanes,
        block_rows=config.train.block_rows,
    ).steps
    shares = _shares(config)
    run_uri = open_run_folder(config)
    prompts = prompt_texts(prompt_sets.values(), tasks)

    # The stream embeds the train reports itself; validation needs its reports once, whatever the mode.
    wanted = dataset.all_folds if config.text.mode == "cached" else validation
    # The template stands in where neither gives a text: the LM's number of features must be known.
    statements, anchors = None, np.zeros(0, dtype=np.int64)
    if config.text.unit == "statement":
        of_reports = one_spelling(report_statements(dataset, config.text.template, dataset.all_folds))
        statements = ReportStatements.build(of_reports)
        reports = sorted({part for parts in of_reports.values() for part in parts})
        kind = f"distinct statements of {len(of_reports)} reports"
        trained = report_texts(dataset, config.text.template, train)
        anchors = ReportStatements.build({one: of_reports[one] for one in trained}).most_frequent(MOST_ANCHORS)
    else:
        reports = report_texts(dataset, config.text.template, wanted) or [config.text.template]
        kind = "distinct reports"
    say(f"text: {len(reports)} {kind} and {len(prompts)} prompts, LM `{config.text.model}`")
    embedded = embed_texts(config.text, store_uri(config, dataset), reports=reports, prompts=prompts)
    say(f"text: {embedded.reports_embedded} reports and {embedded.prompts_embedded} prompts went through the LM")

    # Here, where the driver is: on another node it would go with that node, and nothing more would be told.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    job = TrainJob(
        config=config,
        run_uri=run_uri,
        attempt=uuid.uuid4().hex[:8],
        dataset=dataset,
        train=train,
        validation=validation,
        train_groups=train_groups,
        validation_groups=tuple(dataset.row_groups(validation)),
        tasks=tasks,
        prompt_sets=prompt_sets,
        prompts=tuple(prompts),
        text_fingerprint=embedded.fingerprint,
        earlier_folds=earlier_folds_of(config, card),
        text_features=embedded.table.vectors.shape[1],
        table=ray.put(embedded.table),
        statements=ray.put(statements),
        anchors=tuple(anchors.tolist()),
        shares=shares,
        progress=queue,
    )
    say(
        f"training: {sum(group.rows for group in train_groups)} ECGs, an epoch of {steps} steps of "
        f"{config.train.batch_size}, {_workers(config)} workers "
        f"with {shares.worker_cpus:g} CPUs and {shares.gpus_per_worker} GPUs"
    )
    say(f"run: {run_uri}" + (" (resumed)" if config.train.resume else ""))
    result, restarts = _run(job, steps=steps)
    return _publish(job, result, embedded, restarts)


def figures(result: Pretrained) -> dict[str, Any]:
    """The machine-readable end of a job."""
    last = result.history[-1]
    return {
        "run_uri": result.run_uri,
        "bundle_uri": result.bundle_uri,
        "picture_uri": result.picture_uri,
        "epochs": int(last["epoch"] or 0),
        "loss": last["loss"],
        "bundle_epoch": result.epoch,
        "validation_macro_auroc": result.history[result.epoch - 1]["validation_macro_auroc"],
        "ecg_per_s": statistics.fmean(_known("ecg_per_s", result)),
        "data_wait_share": statistics.fmean(_known("data_wait_share", result)),
        "lm_texts_embedded": result.reports_embedded + int(sum(_known("lm_texts_embedded", result))),
        "lm_prompts_embedded": result.prompts_embedded,
        "restarts": result.restarts,
        "notices": [result.notice] if result.notice else [],
    }


def _known(name: str, result: Pretrained) -> list[float]:
    return [value for value in (figures.get(name) for figures in result.history) if value is not None]


def _check_folds(
    config: Config, dataset: PreparedDataset, train: Selection, validation: Selection, test: Selection
) -> None:
    dataset.check_patients(train, test, names=("train", "test"))
    dataset.check_patients(train, validation, names=("train", "validation"))
    dataset.check_patients(validation, test, names=("validation", "test"))
    if not dataset.row_groups(train):
        raise ConfigError(
            f"`folds.train` {list(config.folds.train)} holds no record of `{dataset.card.source}`, which has folds "
            f"{list(dataset.card.folds)}",
            hint="choose other folds",
        )


def _prompt_sets(config: Config) -> dict[str, PromptSet]:
    names = dict.fromkeys([*PACKAGED_PROMPT_SETS, config.train.validation_prompt_set])
    return {name: read_prompt_set(name) for name in names}


def _shares(config: Config) -> TrainShares:
    """For the largest group that the cluster can ever hold. Raises ConfigError where not even the smallest fits."""
    nodes, train, lm = reachable_nodes(), config.train, config.text
    actors = lm.max_actors if lm.mode == "streaming" else 0

    def of(workers: int) -> TrainShares:
        shares = train_shares(
            nodes,
            num_workers=workers,
            device=train.device,
            resources=train.resources,
            lm_cpus_per_worker=actors * lm.num_cpus_per_actor,
            lm_gpus_per_worker=actors * lm.num_gpus_per_actor,
        )
        check_lm_fits(
            nodes,
            shares,
            num_workers=workers,
            worker_resources=train.resources,
            actors_per_worker=actors,
            actor={"CPU": lm.num_cpus_per_actor, "GPU": lm.num_gpus_per_actor, **lm.resources},
        )
        return shares

    for workers in range(train.most_workers, train.least_workers, -1):
        with suppress(ConfigError):
            return of(workers)
    return of(train.least_workers)


def _workers(config: Config) -> str:
    train = config.train
    return (
        f"{train.least_workers} to {train.most_workers}"
        if train.least_workers < train.most_workers
        else str(train.most_workers)
    )


def _run(job: TrainJob, *, steps: int) -> tuple[Result, int]:
    """(what Ray Train ended with, how often the group was started again)."""
    train = job.config.train
    filesystem, path = storage.arrow_filesystem(job.run_uri.rpartition("/")[0])
    gpus = job.shares.gpus_per_worker
    # A lone worker that is stopped has no other one that would notice: Ray's poll of it must fail in time.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(train.step_timeout_s)
    trainer = TorchTrainer(
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
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=train.keep_checkpoints,
                checkpoint_score_attribute="selection_score",
                checkpoint_score_order="max",
            ),
            callbacks=[_TellFailures(job.progress)],  # type: ignore[list-item]
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
    )
    console = TrainConsole(job, steps=steps)
    with console:
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise own_error(error) from error
    # The workers end without an error when they find one that came back: Ray would start them again for it.
    if failure := repeated_failure(failures_uri(job)):
        raise failure.as_error()
    if result.error is not None:
        raise own_error(result.error) from result.error
    return result, console.restarts


class _TellFailures(UserCallback):
    """Runs in Ray Train's controller: the driver learns which worker was lost and of what."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        told = {rank: _in_one_line(error) for rank, error in sorted(worker_exceptions.items())}
        self._progress.actor.put_nowait.remote({"failed": told})


def _in_one_line(error: Exception) -> str:
    cause = own_error(error)
    if isinstance(cause, MetsError):
        return cause.fact
    if is_lost_peer(cause):
        return "its connection to another worker broke"
    kind = type(cause).__name__
    if kind == "WorkerHealthCheckFailedError":  # internal to Ray; its text is a report of thirty lines
        return "its process or its node died, or gave no sign"
    return f"{kind}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"[:200]


def _publish(job: TrainJob, result: Result, embedded: EmbeddedTexts, restarts: int) -> Pretrained:
    """The chosen epoch as `<run>/bundle`, and the picture of the whole run beside it."""
    assert result.checkpoint is not None
    checkpoint, chosen = max(result.best_checkpoints or [], key=lambda pair: pair[1]["selection_score"])
    bundle_uri = storage.join(job.run_uri, "bundle")
    publish_bundle(_checkpoint_uri(job.run_uri, checkpoint), bundle_uri)
    history = read_facts(_checkpoint_uri(job.run_uri, result.checkpoint)).history
    notice = "SYNTHETIC data: these figures say nothing about real ECGs" if job.dataset.card.synthetic else ""
    say(f"bundle of epoch {int(chosen['epoch'])} ({job.config.train.choose}): {bundle_uri}")
    picture_uri = storage.join(job.run_uri, "training.png")
    title = f"{job.run}, {job.config.loss}" + (" (SYNTHETIC data)" if job.dataset.card.synthetic else "")
    storage.write_bytes(
        picture_uri, draw_training([_plain(figures) for figures in history], int(chosen["epoch"]), title)
    )
    return Pretrained(
        run_uri=job.run_uri,
        bundle_uri=bundle_uri,
        picture_uri=picture_uri,
        history=history,
        epoch=int(chosen["epoch"]),
        reports_embedded=embedded.reports_embedded,
        prompts_embedded=embedded.prompts_embedded,
        restarts=restarts,
        notice=notice,
    )


def _checkpoint_uri(run_uri: str, checkpoint: Checkpoint) -> str:
    return storage.join(run_uri, checkpoint.path.rstrip("/").rsplit("/", 1)[-1])


def _plain(figures: dict[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in figures.items()}
