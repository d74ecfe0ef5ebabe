"""Zero-shot evaluation: embed the test folds with a bundle, score them against class prompts, write tables."""

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from mets_ray import storage, tables, text
from mets_ray.balanced import score_balanced, sets_of_task
from mets_ray.baselines import Scene, score_baselines
from mets_ray.checkpoint import MANIFEST_NAME, Bundle, BundleFacts, load_bundle
from mets_ray.config import Config
from mets_ray.console import say
from mets_ray.embed import embed_records
from mets_ray.embedded import EmbeddedRecords
from mets_ray.errors import ConfigError, MetsError
from mets_ray.folds import Selection
from mets_ray.report import LabelSet, PromptSet
from mets_ray.schema import DatasetCard
from mets_ray.score_files import TaskSimilarities, read_similarities, write_similarities
from mets_ray.scoring import compare, roc_picture, score_task
from mets_ray.shard_reader import DatasetIndex, check_patients, read_card, read_index
from mets_ray.tables import Comparison, Evaluated, interval_json, number_json
from mets_ray.tasks import check_prompts, check_signal, choose_tasks, read_prompt_set, task_scores

_PUBLISHED_TEST_FOLD = 10


def evaluate(config: Config, dataset_uri: str, bundle_uri: str) -> Evaluated:
    """Score `folds.test` of a prepared data set with a bundle; write `metrics.json`, `table.md`, CSV and ROC pictures.

    Raises CheckpointError where bundle and data set do not fit, DatasetError for a patient that the bundle was trained
    on, ConfigError for unknown tasks or prompts.
    """
    card, bundle = read_card(dataset_uri), load_bundle(bundle_uri)
    test = Selection(config.folds.test)
    index = read_index(dataset_uri, card)
    alarms = _check_fit(config, card, bundle.facts, test, index)
    tasks = choose_tasks(card.source, config.evaluate.tasks)
    if not tasks:
        raise ConfigError(f"the source `{card.source}` has no packaged label sets", hint="use a source with labels")
    prompt_set = read_prompt_set(config.evaluate.prompt_set)
    check_prompts(prompt_set, tasks)
    records = embed_records(config, dataset_uri, index, test, bundle_uri, key="folds.test")
    similarities = _similarities(config, bundle, dataset_uri, tasks, records)

    settings, stamp = config.evaluate, datetime.now().strftime("%Y%m%d-%H%M%S")
    result_uri = storage.join(storage.absolute(config.run_uri), f"evaluate-{stamp}-{prompt_set.name}")
    scored, balanced, pictures = [], [], []
    for task, of in similarities.items():
        scored.append(score_task(of, samples=settings.bootstrap_samples, seed=config.seed))
        pictures.append(storage.join(result_uri, f"roc_{task}.png"))
        storage.write_bytes(pictures[-1], roc_picture(scored[-1], of, synthetic=card.synthetic))
        balanced += [
            score_balanced(
                of_task,
                of.classes,
                of.similarity,
                of.truth,
                of.patients,
                per_class=settings.balanced_per_class,
                samples=settings.bootstrap_samples,
                seed=config.seed,
            )
            for of_task in sets_of_task(task)
        ]
        facts = {"bundle_run": bundle.facts.run, "prompt_set": prompt_set.sha256, "dataset": card.content_sha256}
        write_similarities(result_uri, of, facts)
    scene = Scene(config, dataset_uri, index, test, bundle_uri, bundle, tasks, records, similarities)
    values = [score.macro.value for score in scored if not math.isnan(score.macro.value)]
    result = Evaluated(
        result_uri=result_uri,
        macro_auroc=sum(values) / len(values) if values else math.nan,
        over=f"mean of {len(values)} tasks' macro AUROC ({', '.join(score.task for score in scored)}), "
        f"{len(records.record_ids)} records of folds {_folds(test.folds)}",
        tasks=tuple(scored),
        balanced=tuple(balanced),
        notices=tuple(_notices(card, bundle.facts, test)),
        pictures=tuple(pictures),
        alarms=tuple(alarms),
        baselines=tuple(score_baselines(scene)),
        compared_to=settings.compare_to or "",
        comparisons=tuple(_comparisons(scene, card)) if settings.compare_to else (),
    )
    _write(result, config, card, bundle.facts, prompt_set, bundle_uri)
    return result


def figures(result: Evaluated) -> dict[str, Any]:
    """The machine-readable end of a job."""
    return {
        "result_uri": result.result_uri,
        "table_uri": storage.join(result.result_uri, "table.md"),
        "picture_uris": list(result.pictures),
        "macro_auroc": number_json(result.macro_auroc),
        "over": result.over,
        "tasks": {task.task: interval_json(task.macro) for task in result.tasks},
        "balanced": {
            score.set.name: {"per_class": score.per_class}
            | {name: number_json(interval.value) for name, interval in score.scores.items()}
            for score in result.balanced
        },
        "baselines": {
            f"{row.task}: {row.baseline}, {row.note}": number_json(row.macro.value) for row in result.baselines
        },
        "differences": {row.task: interval_json(row.difference) for row in result.comparisons},
        "notices": [*result.alarms, *result.notices],
    }


def _check_fit(
    config: Config, card: DatasetCard, facts: BundleFacts, test: Selection, index: DatasetIndex
) -> list[str]:
    """Alarms of a bundle that may be scored all the same. Raises where it must not be."""
    if card.synthetic and not facts.synthetic:
        raise ConfigError(
            f"the bundle was trained on real ECGs of `{facts.dataset_source}`, the data set to score is synthetic",
            hint="set dataset_uri to a prepared data set of real ECGs",
        )
    absent = sorted(set(test.folds) - set(card.folds))
    if absent:
        raise ConfigError(
            f"`folds.test` names fold {_folds(tuple(absent))}, the data set has folds {_folds(tuple(card.folds))}",
            hint="leave it out",
        )
    check_signal(card, facts)
    alarms = ["The bundle was trained on SHUFFLED reports: it must know nothing."] if facts.shuffled_reports else []
    if card.source != facts.dataset_source:
        return alarms
    overlap = sorted(set(facts.seen_folds) & set(test.folds))
    try:
        if overlap:
            raise ConfigError(
                f"`folds.test` holds fold {_folds(tuple(overlap))}, which trained the bundle or chose its checkpoint",
                hint=f"train folds were {_folds(facts.train_folds)}, validation {facts.validation}, earlier "
                f"{_folds(facts.earlier_folds) or 'none'}; evaluate.allow_patient_overlap=true scores them anyway",
            )
        check_patients(index, Selection(facts.seen_folds), test, names=("train or validation", "test"))
    except MetsError as error:
        if not config.evaluate.allow_patient_overlap:
            raise
        alarms.append(f"The bundle has seen patients of this test, so its scores are too high: {error.fact}.")
    return alarms


def _similarities(
    config: Config, bundle: Bundle, dataset_uri: str, tasks: dict[str, LabelSet], records: EmbeddedRecords
) -> dict[str, TaskSimilarities]:
    """By task, without those of which no record has a class."""
    prompt_set = read_prompt_set(config.evaluate.prompt_set)
    table = text.prompt_table(config, bundle, prompt_set, tasks, dataset_uri)
    found = {}
    for task, label_set in tasks.items():
        similarity, truth, kept = task_scores(
            bundle.model, prompt_set, label_set, table, records.embeddings, records.labels
        )
        if len(truth):
            names = tuple(name for name, keep in zip(records.record_ids, kept, strict=True) if keep)
            found[task] = TaskSimilarities(
                task, tuple(label_set.classes), names, records.patients[kept], similarity, truth
            )
    return found


def _comparisons(scene: Scene, card: DatasetCard) -> Iterator[Comparison]:
    """The paired difference of each task to another bundle, or to the files of an earlier evaluation."""
    config, settings = scene.config, scene.config.evaluate
    assert settings.compare_to is not None
    uri = storage.absolute(settings.compare_to)
    others: dict[str, TaskSimilarities]
    if storage.exists(storage.join(uri, MANIFEST_NAME)):
        bundle = load_bundle(uri)
        for alarm in _check_fit(config, card, bundle.facts, scene.test, scene.index):
            say(f"ALARM, of the bundle to compare with: {alarm}")
        records = embed_records(config, scene.dataset_uri, scene.index, scene.test, uri, key="folds.test")
        others = _similarities(config, bundle, scene.dataset_uri, dict(scene.tasks), records)
    else:
        read = {task: read_similarities(uri, task) for task in scene.scores}
        others = {task: scores for task, scores in read.items() if scores is not None}
    if not others:
        raise ConfigError(
            f"`evaluate.compare_to` is `{uri}`, which is no bundle and holds no scores of {', '.join(scene.scores)}",
            hint="give a bundle, or the result_uri that jobs/evaluate.py printed",
        )
    for task, other in others.items():
        yield compare(scene.scores[task], other, samples=settings.bootstrap_samples, seed=config.seed)


def _notices(card: DatasetCard, facts: BundleFacts, test: Selection) -> list[str]:
    validation = facts.validation if isinstance(facts.validation, str) else _folds(facts.validation) or "none"
    lines = [
        f"Trained on folds {_folds(facts.train_folds)} of {facts.dataset_source} (validation: {validation}), "
        f"tested on folds {_folds(test.folds)} of {card.source}."
    ]
    if card.synthetic or facts.synthetic:
        lines.append("SYNTHETIC data: these scores say nothing about real ECGs.")
    elif card.source == "ptbxl" and not _is_published_split(facts, test):
        lines.append("This is not the published split of PTB-XL (train 1-8, validate 9, test 10): do not compare.")
    lines.append("Research software, not a medical device.")
    return lines


def _is_published_split(facts: BundleFacts, test: Selection) -> bool:
    return (facts.train_folds, facts.validation, test.folds) == (tuple(range(1, 9)), (9,), (_PUBLISHED_TEST_FOLD,))


def _write(
    result: Evaluated, config: Config, card: DatasetCard, facts: BundleFacts, prompt_set: PromptSet, bundle_uri: str
) -> None:
    table = tables.markdown(result, f"{prompt_set.name} version {prompt_set.version}", config.seed)
    say(table)
    storage.write_bytes(storage.join(result.result_uri, "table.md"), table.encode())
    for name, content in (("auroc.csv", tables.auroc_csv(result)), ("balanced.csv", tables.balanced_csv(result))):
        storage.write_bytes(storage.join(result.result_uri, name), content.encode())
    metrics: dict[str, Any] = {
        "macro_auroc": number_json(result.macro_auroc),
        "over": result.over,
        "notices": result.notices,
        "alarms": result.alarms,
        "baselines": [
            {"baseline": row.baseline, "task": row.task, **interval_json(row.macro), "note": row.note}
            for row in result.baselines
        ],
        "compared_to": result.compared_to,
        "differences": {
            row.task: {**interval_json(row.difference), "records": row.records} for row in result.comparisons
        },
        "tasks": {task.task: tables.task_json(task) for task in result.tasks},
        "balanced": {score.set.name: tables.balanced_json(score) for score in result.balanced},
        "published": tables.published_json(result),
        "bundle_uri": bundle_uri,
        "dataset_sha256": card.content_sha256,
        "train_folds": facts.train_folds,
        "test_folds": config.folds.test,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "bootstrap": {"samples": config.evaluate.bootstrap_samples, "seed": config.seed, "unit": "patient"},
    }
    storage.write_bytes(storage.join(result.result_uri, "metrics.json"), json.dumps(metrics, indent=1).encode())


def _folds(folds: tuple[int, ...]) -> str:
    return ", ".join(map(str, folds))
