"""Contrastive pretraining from a prepared data set to a published bundle: check, texts, workers, publish."""

import math
import statistics
import uuid
from dataclasses import dataclass
from typing import Any

from ray.train import Result

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.model.bundle import publish_bundle, read_facts
from mets_ray.pictures.training import draw_training
from mets_ray.pipelines.input_reference import write_reference_of
from mets_ray.pipelines.lm_actors import EmbeddedTexts, ask_identity
from mets_ray.tasks.prompt_files import read_prompt_set
from mets_ray.tasks.prompt_sets import PACKAGED_PROMPT_SETS, PromptSet, prompt_texts
from mets_ray.tasks.questions import Questions, dataset_tasks
from mets_ray.training.checks import check_dataset, check_settings, group_shares
from mets_ray.training.job import TrainJob
from mets_ray.training.launch import launch
from mets_ray.training.messages import start_messages
from mets_ray.training.run_folder import checkpoint_uri, chosen_checkpoint, earlier_folds_of, open_run_folder
from mets_ray.training.text_stage import TextStage


@dataclass(frozen=True)
class Pretrained:
    """The result of a finished pretraining run."""

    run_uri: str
    bundle_uri: str
    picture_uri: str
    history: tuple[dict[str, float | None], ...]
    epoch: int  # that the bundle was made from
    reports_embedded: int
    prompts_embedded: int
    restarts: int
    reference_uri: str
    notices: tuple[str, ...]


def fit(config: Config, dataset_uri: str) -> Pretrained:
    """Pretrain on a prepared data set; the epoch selected by `train.choose` is published as `<run>/bundle`.

    Raises DatasetError for a patient in two splits, ConfigError for resources that cannot fit, CheckpointError for a
    resumed run that does not match, FolderInUseError for one that another job continues, and the worker's own MetsError
    if training fails. At a KeyboardInterrupt the workers save a checkpoint first; see `launch`.
    """
    check_settings(config)
    identity = ask_identity(config.text)  # it takes a process and reads the LM's files, so it starts first
    dataset = PreparedDataset.open(dataset_uri)
    check_dataset(config, dataset)
    prompt_sets = _prompt_sets(config)
    questions = Questions(prompt_sets[config.train.validation_prompt_set], dataset_tasks(dataset.card.source))
    shares = group_shares(config)
    # All checks are done at this point, before the LM runs and before a run folder is created.
    run_uri = open_run_folder(config)
    with storage.hold(run_uri, "pretrain", timeout_s=config.lease_timeout_s) as lease:
        train, validation, _ = selections(config.folds.train, config.folds.validation, config.folds.test)
        prompts = prompt_texts(prompt_sets.values(), questions.tasks)
        texts = TextStage(config, dataset, prompts, identity, train=train, validation=validation)
        # Every LM actor of the run, and the bundle, have the commit of the hub that was found now.
        config = config.model_copy(update={"text": config.text.model_copy(update={"revision": texts.revision})})
        job = TrainJob(
            config=config,
            run_uri=run_uri,
            attempt=uuid.uuid4().hex[:8],
            dataset=dataset,
            train=train,
            validation=validation,
            train_groups=tuple(dataset.row_groups(train)),
            validation_groups=tuple(dataset.row_groups(validation)),
            questions=questions,
            prompt_sets=prompt_sets,
            earlier_folds=earlier_folds_of(config, dataset.card),
            shares=shares,
            messages=start_messages(),
        )
        embedded: list[EmbeddedTexts] = []

        def embed() -> None:
            reference, counts = texts.embed()
            job.messages.give_texts.remote([reference])
            embedded.append(counts)

        if not texts.fits_beside_workers(config, shares):
            embed()
        _tell(job)
        result, restarts = launch(job, lease, meanwhile=embed if not embedded else lambda: None)
        lease.confirm()
        return _publish(job, result, embedded[0], restarts)


def figures(result: Pretrained) -> dict[str, Any]:
    """The machine-readable result of a job."""
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
        "reference_uri": result.reference_uri or None,
        "notices": list(result.notices),
    }


def _known(name: str, result: Pretrained) -> list[float]:
    return [value for value in (figures.get(name) for figures in result.history) if value is not None]


def _prompt_sets(config: Config) -> dict[str, PromptSet]:
    names = dict.fromkeys([*PACKAGED_PROMPT_SETS, config.train.validation_prompt_set])
    return {name: read_prompt_set(name) for name in names}


def _tell(job: TrainJob) -> None:
    train, shares = job.config.train, job.shares
    least, most = train.least_workers, train.most_workers
    say(
        f"training: {sum(group.rows for group in job.train_groups)} ECGs, an epoch of {job.plan(0).steps} steps of "
        f"{train.batch_size}, {f'{least} to {most}' if least < most else most} workers "
        f"with {shares.worker_cpus:g} CPUs and {shares.gpus_per_worker} GPUs"
    )
    say(f"run: {job.run_uri}" + (" (resumed)" if train.resume else ""))


def _publish(job: TrainJob, result: Result, embedded: EmbeddedTexts, restarts: int) -> Pretrained:
    """Publish the chosen epoch as `<run>/bundle` with its reference of inputs, and beside it the picture of the run."""
    assert result.checkpoint is not None
    chosen_uri, chosen = chosen_checkpoint(job.run_uri, result)
    bundle_uri = storage.join(job.run_uri, "bundle")
    publish_bundle(chosen_uri, bundle_uri)
    history = read_facts(checkpoint_uri(job.run_uri, result.checkpoint)).history
    notices = ["SYNTHETIC data: these figures say nothing about real ECGs"] if job.dataset.card.synthetic else []
    say(f"bundle of epoch {int(chosen['epoch'])} ({job.config.train.choose}): {bundle_uri}")
    reference, fault = write_reference_of(job.config, job.dataset, bundle_uri)
    if fault:
        notices.append(f"No reference of the bundle's inputs: {fault}.")
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
        reference_uri=reference,
        notices=tuple(notices),
    )


def _plain(figures: dict[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in figures.items()}
