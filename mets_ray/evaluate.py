"""Zero-shot evaluation: embed the test folds with a bundle, score them against class prompts, write tables."""

import json
import math
from datetime import datetime
from typing import Any

import numpy as np
from ray.data import ActorPoolStrategy
from sklearn.metrics import roc_curve

from mets_ray import storage, tables, text
from mets_ray.balanced import score_balanced, sets_of_task
from mets_ray.checkpoint import BundleFacts, load_bundle
from mets_ray.cluster import own_errors, plain, reachable_nodes
from mets_ray.config import Config
from mets_ray.console import progress_bar, say
from mets_ray.data import record_dataset
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.folds import Selection
from mets_ray.metrics import average_precision, bootstrap_macro_auroc
from mets_ray.pictures import draw_roc
from mets_ray.report import LabelSet, PromptSet
from mets_ray.resources import check_actor_fits
from mets_ray.schema import DatasetCard
from mets_ray.shard_reader import check_patients, read_card, read_index
from mets_ray.tables import ClassScore, Evaluated, TaskScore, interval_json, interval_text, number_json
from mets_ray.tasks import EcgEmbedder, check_prompts, check_signal, choose_tasks, read_prompt_set, task_scores

_PUBLISHED_TEST_FOLD = 10


def evaluate(config: Config, dataset_uri: str, bundle_uri: str) -> Evaluated:
    """Score `folds.test` of a prepared data set with a bundle; write `metrics.json`, `table.md`, CSV and ROC pictures.

    Raises CheckpointError where bundle and data set do not fit, DatasetError for a patient that the bundle was trained
    on, ConfigError for unknown tasks or prompts.
    """
    card, bundle = read_card(dataset_uri), load_bundle(bundle_uri)
    test = Selection(config.folds.test)
    index = read_index(dataset_uri, card)
    _check_fit(card, bundle.facts, test)
    if bundle.facts.dataset_source == card.source:
        check_patients(index, Selection(bundle.facts.seen_folds), test, names=("train or validation", "test"))
    groups = index.row_groups(test)
    if not groups:
        raise DatasetError(
            f"`folds.test` {list(test.folds)} holds no record; the data set has folds {list(card.folds)}"
        )
    tasks = choose_tasks(card.source, config.evaluate.tasks)
    if not tasks:
        raise ConfigError(f"the source `{card.source}` has no packaged label sets", hint="use a source with labels")
    prompt_set = read_prompt_set(config.evaluate.prompt_set)
    check_prompts(prompt_set, tasks)
    table = text.prompt_table(config, bundle, prompt_set, tasks, dataset_uri)

    actors = config.evaluate
    gpus = actors.num_gpus_per_actor
    check_actor_fits(reachable_nodes(), key="evaluate", cpus=1.0, gpus=gpus, resources={})
    dataset = record_dataset(groups, dataset_uri=dataset_uri, selection=test).map_batches(
        EcgEmbedder,
        fn_constructor_args=(bundle_uri, "cuda" if gpus else "cpu"),
        batch_size=actors.batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=actors.max_actors),
        num_cpus=0 if gpus else 1,  # on a CPU the reading is fused into the actor; beside a GPU it needs the CPU
        num_gpus=gpus or None,
    )
    plain(dataset)
    rows = []
    with (
        own_errors(),
        progress_bar(total=sum(group.rows for group in groups), unit="ECG", description="embedding") as bar,
    ):
        for row in dataset.iter_rows():
            rows.append(row)
            bar.update()
    rows.sort(key=lambda row: str(row["record_id"]))
    embeddings = np.asarray([row["ecg_embedding"] for row in rows], dtype=np.float32)
    labels = [list(row["labels"]) for row in rows]
    patients = np.asarray([row["patient_id"] for row in rows])

    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    result_uri = storage.join(storage.absolute(config.run_uri), f"evaluate-{stamp}-{prompt_set.name}")
    scored, balanced, pictures = [], [], []
    for label_set in tasks.values():
        similarity, truth, kept = task_scores(bundle.model, prompt_set, label_set, table, embeddings, labels)
        if not len(truth):
            continue
        scored.append(_score(config, label_set, similarity, truth, patients[kept]))
        uri = storage.join(result_uri, f"roc_{label_set.task}.png")
        storage.write_bytes(uri, _roc_picture(scored[-1], similarity, truth, card))
        pictures.append(uri)
        balanced += [
            score_balanced(
                of_task,
                tuple(label_set.classes),
                similarity,
                truth,
                patients[kept],
                per_class=config.evaluate.balanced_per_class,
                samples=config.evaluate.bootstrap_samples,
                seed=config.seed,
            )
            for of_task in sets_of_task(label_set.task)
        ]
    values = [score.macro.value for score in scored if not math.isnan(score.macro.value)]
    result = Evaluated(
        result_uri=result_uri,
        macro_auroc=sum(values) / len(values) if values else math.nan,
        over=f"mean of {len(values)} tasks' macro AUROC ({', '.join(score.task for score in scored)}), "
        f"{len(rows)} records of folds {_folds(test.folds)}",
        tasks=tuple(scored),
        balanced=tuple(balanced),
        notices=tuple(_notices(card, bundle.facts, test)),
        pictures=tuple(pictures),
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
        "notices": list(result.notices),
    }


def _check_fit(card: DatasetCard, facts: BundleFacts, test: Selection) -> None:
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
    overlap = sorted(set(facts.seen_folds) & set(test.folds)) if card.source == facts.dataset_source else []
    if overlap:
        raise ConfigError(
            f"`folds.test` holds fold {_folds(tuple(overlap))}, which trained the bundle or chose its checkpoint",
            hint=f"train folds were {_folds(facts.train_folds)}, validation {facts.validation}, earlier "
            f"{_folds(facts.earlier_folds) or 'none'}",
        )


def _score(
    config: Config, label_set: LabelSet, similarity: np.ndarray, truth: np.ndarray, patients: np.ndarray
) -> TaskScore:
    intervals = bootstrap_macro_auroc(
        similarity, truth, patients, samples=config.evaluate.bootstrap_samples, seed=config.seed
    )
    _, precisions = average_precision(similarity, truth)
    classes = tuple(
        ClassScore(
            name,
            intervals.per_class[column],
            float(precisions[column]),
            positives=int(truth[:, column].sum()),
            patients=len(np.unique(patients[truth[:, column]])),
            records=len(truth),
        )
        for column, name in enumerate(label_set.classes)
    )
    return TaskScore(label_set.task, intervals.macro, classes, len(truth))


def _roc_picture(score: TaskScore, similarity: np.ndarray, truth: np.ndarray, card: DatasetCard) -> bytes:
    curves = {}
    for column, row in enumerate(score.classes):
        if row.scored:
            false_positive, true_positive, _ = roc_curve(truth[:, column], similarity[:, column])
            curves[row.name] = (false_positive, true_positive, row.auroc.value)
    suffix = " (SYNTHETIC data)" if card.synthetic else ""
    return draw_roc(curves, f"{score.task}: zero-shot, macro AUROC {interval_text(score.macro)}{suffix}")


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
