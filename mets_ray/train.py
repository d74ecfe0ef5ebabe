"""Contrastive pretraining on Ray Train: `fit()` plans and starts it, `train_worker` is what every worker runs."""

import math
import statistics
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import ray
import yaml
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue

from mets_ray import storage, text
from mets_ray.checkpoint import MANIFEST_NAME, publish_bundle, read_facts
from mets_ray.cluster import live_nodes, own_error
from mets_ray.config import Config, dump_config
from mets_ray.console import progress_bar, say
from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.folds import Selection, selections
from mets_ray.pictures import draw_training
from mets_ray.plan import plan_epoch
from mets_ray.report import PromptSet
from mets_ray.resources import TrainShares, train_shares
from mets_ray.schema import DatasetCard
from mets_ray.shard_reader import DatasetIndex, check_patients, read_card, read_index
from mets_ray.tasks import PACKAGED_PROMPT_SETS, check_prompts, dataset_tasks, prompt_texts, read_prompt_set
from mets_ray.tracking import Tracker, check_trackers
from mets_ray.train_worker import TrainJob, train_worker

# Settings that say where and how a run goes, not what it computes: a resumed run may change them.
_FREE_TO_CHANGE = (
    "run_uri",
    "evaluate",
    "train.resume",
    "train.num_workers",
    "train.device",
    "train.max_failures",
    "train.mlflow",
    "train.wandb",
    *(f"text.{key}" for key in ("num_cpus_per_actor", "num_gpus_per_actor", "min_actors", "max_actors", "resources")),
)


@dataclass(frozen=True)
class Pretrained:
    """What a finished pretraining leaves behind."""

    run_uri: str
    bundle_uri: str
    picture_uri: str
    history: tuple[dict[str, float | None], ...]
    reports_embedded: int
    prompts_embedded: int
    notice: str


def fit(config: Config, dataset_uri: str) -> Pretrained:
    """Pretrain on a prepared data set; the best checkpoint is published as `<run>/bundle`.

    Raises DatasetError for a patient on two sides, ConfigError for what cannot fit, CheckpointError for a resume that
    does not match, and the worker's own MetsError when training fails.
    """
    check_trackers(config)
    card = read_card(dataset_uri)
    index = read_index(dataset_uri, card)
    train, validation, test = selections(config.folds.train, config.folds.validation, config.folds.test)
    _check_folds(config, card, index, train, validation, test)
    prompt_sets = _prompt_sets(config)
    tasks = dataset_tasks(card.source)
    check_prompts(prompt_sets[config.train.validation_prompt_set], tasks)
    # All that can be refused is refused before the LM runs and before a run folder is made.
    train_groups = tuple(index.row_groups(train))
    steps = plan_epoch(
        train_groups,
        seed=config.seed,
        epoch=0,
        batch_size=config.train.batch_size,
        lanes=config.train.lanes,
        block_rows=config.train.block_rows,
    ).steps
    shares = _shares(config)
    run_uri = _run_folder(config)
    prompts = prompt_texts(prompt_sets.values(), tasks)

    # The stream embeds the train reports itself; validation needs its reports once, whatever the mode.
    everything = Selection(tuple(card.folds))
    wanted = everything if config.text.mode == "cached" else validation
    # The template stands in where neither gives a text: the LM's number of features must be known.
    reports = text.report_texts(dataset_uri, card, config.text.template, wanted) or [config.text.template]
    say(f"text: {len(reports)} distinct reports and {len(prompts)} prompts, LM `{config.text.model}`")
    embedded = text.embed_texts(config.text, text.store_uri(config, dataset_uri), reports=reports, prompts=prompts)
    say(f"text: {embedded.reports_embedded} reports and {embedded.prompts_embedded} prompts went through the LM")

    queue = Queue(actor_options={"num_cpus": 0})
    job = TrainJob(
        config=config,
        run=run_uri.rsplit("/", 1)[-1],
        dataset_uri=dataset_uri,
        card=card,
        train=train,
        validation=validation,
        train_groups=train_groups,
        validation_groups=tuple(index.row_groups(validation)),
        tasks=tasks,
        prompt_sets=prompt_sets,
        prompts=tuple(prompts),
        text_fingerprint=embedded.fingerprint,
        earlier_folds=_earlier_folds(config, card),
        text_features=embedded.table.vectors.shape[1],
        table=ray.put(embedded.table),
        shares=shares,
        progress=queue,
    )
    say(
        f"training: {sum(group.rows for group in train_groups)} ECGs, an epoch of {steps} steps of "
        f"{config.train.batch_size}, {config.train.num_workers} workers "
        f"with {shares.worker_cpus:g} CPUs and {shares.gpus_per_worker} GPUs"
    )
    say(f"run: {run_uri}" + (" (resumed)" if config.train.resume else ""))
    result = _run(job, run_uri, total_steps=steps * config.train.epochs)
    return _publish(job, run_uri, result, embedded)


def figures(result: Pretrained) -> dict[str, Any]:
    """The machine-readable end of a job."""
    last = result.history[-1]
    return {
        "run_uri": result.run_uri,
        "bundle_uri": result.bundle_uri,
        "picture_uri": result.picture_uri,
        "epochs": int(last["epoch"] or 0),
        "loss": last["loss"],
        "validation_macro_auroc": max(_known("validation_macro_auroc", result), default=None),
        "ecg_per_s": statistics.fmean(_known("ecg_per_s", result)),
        "data_wait_share": statistics.fmean(_known("data_wait_share", result)),
        "lm_texts_embedded": result.reports_embedded + int(sum(_known("lm_texts_embedded", result))),
        "lm_prompts_embedded": result.prompts_embedded,
        "notices": [result.notice] if result.notice else [],
    }


def _known(name: str, result: Pretrained) -> list[float]:
    return [value for value in (figures.get(name) for figures in result.history) if value is not None]


def _check_folds(
    config: Config, card: DatasetCard, index: DatasetIndex, train: Selection, validation: Selection, test: Selection
) -> None:
    check_patients(index, train, test, names=("train", "test"))
    check_patients(index, train, validation, names=("train", "validation"))
    check_patients(index, validation, test, names=("validation", "test"))
    if not index.row_groups(train):
        raise ConfigError(
            f"`folds.train` {list(config.folds.train)} holds no record of `{card.source}`, which has folds "
            f"{list(card.folds)}",
            hint="choose other folds",
        )


def _earlier_folds(config: Config, card: DatasetCard) -> tuple[int, ...]:
    """What the weights that this run starts from have already seen of the same source."""
    if config.train.init_from is None:
        return ()
    facts = read_facts(config.train.init_from)
    return facts.seen_folds if facts.dataset_source == card.source else ()


def _prompt_sets(config: Config) -> dict[str, PromptSet]:
    names = dict.fromkeys([*PACKAGED_PROMPT_SETS, config.train.validation_prompt_set])
    return {name: read_prompt_set(name) for name in names}


def _run_folder(config: Config) -> str:
    """A new run's folder, or the folder of the run to resume once its settings are seen to be the same."""
    if config.train.resume is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        run_uri = storage.join(storage.absolute(config.run_uri), f"pretrain-{stamp}-{uuid.uuid4().hex[:4]}")
        storage.write_bytes(storage.join(run_uri, "config.yaml"), dump_config(config).encode())
        return run_uri
    run_uri = storage.absolute(config.train.resume)
    config_uri = storage.join(run_uri, "config.yaml")
    if not storage.exists(config_uri):
        raise CheckpointError(
            f"`train.resume` is `{run_uri}`, which holds no config.yaml", hint="give the run_uri that pretrain printed"
        )
    if storage.exists(storage.join(run_uri, MANIFEST_NAME)):
        raise CheckpointError(
            f"`train.resume` is `{run_uri}`, a bundle or a checkpoint and not a run",
            hint=f"give the run's folder, {run_uri.rpartition('/')[0]}, or start a new run with train.init_from",
        )
    before = yaml.safe_load(storage.read_bytes(config_uri))
    changed = _changed(before, config.model_dump(mode="json"))
    if changed:
        lines = [f"`{key}` was {old!r}, is {new!r}" for key, old, new in changed]
        raise CheckpointError(
            "a resumed run must keep its settings:\n" + "\n".join(lines),
            where=run_uri,
            hint="give the run's own config.yaml as --config, or start a new run with train.init_from",
        )
    return run_uri


def _changed(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for name in sorted(set(before) | set(after)):
        key, old, new = f"{prefix}{name}", before.get(name), after.get(name)
        if key in _FREE_TO_CHANGE or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and key != "text.resources":
            found += _changed(old, new, f"{key}.")
        else:
            found.append((key, old, new))
    return found


def _shares(config: Config) -> TrainShares:
    actors = config.text.max_actors if config.text.mode == "streaming" else 0
    return train_shares(
        live_nodes(),
        num_workers=config.train.num_workers,
        device=config.train.device,
        lm_cpus_per_worker=actors * config.text.num_cpus_per_actor,
        lm_gpus_per_worker=actors * config.text.num_gpus_per_actor,
    )


def _run(job: TrainJob, run_uri: str, *, total_steps: int) -> Result:
    train = job.config.train
    parent, name = run_uri.rstrip("/").rsplit("/", 1)
    filesystem, path = storage.arrow_filesystem(parent)
    gpus = job.shares.gpus_per_worker
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": job.shares.worker_cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=train.keep_checkpoints,
                checkpoint_score_attribute="selection_score",
                checkpoint_score_order="max",
            ),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
    )
    with _shown(job, run_uri, total_steps):
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise own_error(error) from error
    if result.error is not None:
        raise own_error(result.error) from result.error
    return result


@contextmanager
def _shown(job: TrainJob, run_uri: str, total_steps: int) -> Iterator[None]:
    """A progress bar, one line per epoch and the trackers, fed by rank 0 through the job's queue."""
    stop = threading.Event()
    tracker = Tracker(job.config, run_uri)
    logged: set[int] = set()

    def show() -> None:
        with progress_bar(total=total_steps, unit="step", description="training") as bar:
            while True:
                try:
                    told = job.progress.get(timeout=0.5)
                except Empty:
                    if stop.is_set():
                        return
                    continue
                if "step" in told:
                    bar.set_postfix_str(f"loss {told['loss']:.3f}", refresh=False)
                    bar.update(told["step"] - bar.n)
                else:
                    figures = told["figures"]
                    bar.update(int(total_steps * figures["epoch"] / job.config.train.epochs) - bar.n)
                    bar.write(epoch_line(figures, job.config.train.epochs), file=sys.stderr)
                    if figures["epoch"] not in logged:  # a restarted worker tells an epoch again
                        logged.add(figures["epoch"])
                        try:
                            tracker.log(int(figures["epoch"]), figures)
                        except Exception as error:  # a tracker that is down must not take the run with it
                            bar.write(f"epoch {figures['epoch']:.0f} was not logged: {error}", file=sys.stderr)

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10.0)
        tracker.close()
        job.progress.shutdown()


def epoch_line(figures: dict[str, float | None], epochs: int) -> str:
    """One epoch in one line: loss, logit scale, recall@1/5/10 both ways, AUROC, ECG/s, share of waiting for data."""

    def recall(way: str) -> str:
        return "/".join(_shown_number(figures.get(f"{way}_recall_at_{k}")) for k in (1, 5, 10))

    return (
        f"epoch {int(figures['epoch'] or 0)}/{epochs}  loss {_shown_number(figures['loss'])}  "
        f"logit scale {figures['logit_scale']:.1f}  recall@1/5/10 ecg→text {recall('ecg_to_text')} "
        f"text→ecg {recall('text_to_ecg')}  validation AUROC {_shown_number(figures['validation_macro_auroc'])}  "
        f"{figures['ecg_per_s']:.0f} ECG/s  data wait {figures['data_wait_share']:.0%}"
    )


def _shown_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _publish(job: TrainJob, run_uri: str, result: Result, embedded: text.EmbeddedTexts) -> Pretrained:
    """The best checkpoint as `<run>/bundle`, and the picture of the whole run beside it."""
    assert result.checkpoint is not None
    best, chosen = max(result.best_checkpoints or [], key=lambda pair: pair[1]["selection_score"])
    bundle_uri = storage.join(run_uri, "bundle")
    publish_bundle(_checkpoint_uri(run_uri, best), bundle_uri)
    history = read_facts(_checkpoint_uri(run_uri, result.checkpoint)).history
    notice = "SYNTHETIC data: these figures say nothing about real ECGs" if job.card.synthetic else ""
    say(f"best epoch {int(chosen['epoch'])}, selection score {chosen['selection_score']:.3f}; bundle {bundle_uri}")
    picture_uri = storage.join(run_uri, "training.png")
    title = f"{job.run}, {job.config.loss.targets}" + (" (SYNTHETIC data)" if job.card.synthetic else "")
    storage.write_bytes(picture_uri, draw_training([_plain(figures) for figures in history], title))
    return Pretrained(
        run_uri=run_uri,
        bundle_uri=bundle_uri,
        picture_uri=picture_uri,
        history=history,
        reports_embedded=embedded.reports_embedded,
        prompts_embedded=embedded.prompts_embedded,
        notice=notice,
    )


def _checkpoint_uri(run_uri: str, checkpoint: Checkpoint) -> str:
    return storage.join(run_uri, checkpoint.path.rstrip("/").rsplit("/", 1)[-1])


def _plain(figures: dict[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in figures.items()}
