"""Zero-shot evaluation: embed the test folds with a bundle, score them against class prompts, write tables."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from ray.data import ActorPoolStrategy
from sklearn.metrics import roc_curve

from mets_ray import storage, text
from mets_ray.checkpoint import Bundle, BundleFacts, load_bundle
from mets_ray.cluster import live_nodes, own_errors, plain
from mets_ray.config import Config
from mets_ray.console import progress_bar, say
from mets_ray.data import record_dataset
from mets_ray.errors import CheckpointError, ConfigError, DatasetError
from mets_ray.folds import Selection
from mets_ray.metrics import Interval, average_precision, bootstrap_macro_auroc
from mets_ray.pictures import draw_roc
from mets_ray.report import LabelSet, PromptSet
from mets_ray.resources import check_actor_fits
from mets_ray.schema import DatasetCard
from mets_ray.shard_reader import check_patients, read_card, read_index
from mets_ray.tasks import EcgEmbedder, check_prompts, choose_tasks, prompt_texts, read_prompt_set, task_scores
from mets_ray.text_store import EmbeddingTable

_PUBLISHED_TEST_FOLD = 10


@dataclass(frozen=True)
class ClassScore:
    """One row of a task's table; the AUROC is nan where the class has no positives or no negatives."""

    name: str
    auroc: Interval
    average_precision: float
    positives: int
    records: int

    @property
    def scored(self) -> bool:
        return not math.isnan(self.auroc.value)


@dataclass(frozen=True)
class TaskScore:
    """One task: its macro AUROC with a 95% interval over patients, and its classes."""

    task: str
    macro: Interval
    classes: tuple[ClassScore, ...]
    records: int


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation leaves behind. `macro_auroc` is the mean of the tasks' macro AUROCs."""

    result_uri: str
    macro_auroc: float
    over: str
    tasks: tuple[TaskScore, ...]
    notices: tuple[str, ...]
    pictures: tuple[str, ...]


def evaluate(config: Config, dataset_uri: str, bundle_uri: str) -> Evaluated:
    """Score `folds.test` of a prepared data set with a bundle, and write `metrics.json`, `table.md` and ROC pictures.

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
    table = _prompt_table(config, bundle, prompt_set, tasks, dataset_uri)

    actors = config.evaluate
    gpus = actors.num_gpus_per_actor
    check_actor_fits(live_nodes(), key="evaluate", cpus=1.0, gpus=gpus, resources={})
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
    scored, pictures = [], []
    for label_set in tasks.values():
        similarity, truth, kept = task_scores(bundle.model, prompt_set, label_set, table, embeddings, labels)
        if not len(truth):
            continue
        scored.append(_score(config, label_set, similarity, truth, patients[kept]))
        uri = storage.join(result_uri, f"roc_{label_set.task}.png")
        storage.write_bytes(uri, _roc_picture(scored[-1], similarity, truth, card))
        pictures.append(uri)
    values = [score.macro.value for score in scored if not math.isnan(score.macro.value)]
    result = Evaluated(
        result_uri=result_uri,
        macro_auroc=sum(values) / len(values) if values else math.nan,
        over=f"mean of {len(values)} tasks' macro AUROC ({', '.join(score.task for score in scored)}), "
        f"{len(rows)} records of folds {_folds(test.folds)}",
        tasks=tuple(scored),
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
        "macro_auroc": _number(result.macro_auroc),
        "over": result.over,
        "tasks": {task.task: task_figures(task.macro) for task in result.tasks},
        "notices": list(result.notices),
    }


def report_table(result: Evaluated, prompt_set: str) -> str:
    """The result for people, as Markdown: one table per task, unscored classes named below it."""
    lines = [f"# Zero-shot AUROC, prompt set `{prompt_set}`", "", *(f"**{notice}**" for notice in result.notices), ""]
    for task in result.tasks:
        lines += [
            f"## {task.task}: macro AUROC {_interval(task.macro)}, {task.records} records",
            "",
            "| class | AUROC [95% interval] | average precision | positives |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {row.name} | {_interval(row.auroc)} | {row.average_precision:.3f} | {row.positives} |"
            for row in task.classes
            if row.scored
        ]
        unscored = [f"{row.name} ({row.positives} positives)" for row in task.classes if not row.scored]
        if unscored:
            lines += ["", f"Not scored (no positives or no negatives): {', '.join(unscored)}"]
        lines.append("")
    lines.append(f"Mean over tasks: {result.macro_auroc:.3f} ({result.over})")
    return "\n".join(lines)


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
    if card.signal != facts.signal:
        raise CheckpointError(
            f"the bundle is for {facts.sampling_rate_hz} Hz × {facts.duration_s:g} s × {len(facts.leads)} leads "
            f"and the data set holds {card.sampling_rate_hz} Hz × {card.duration_s:g} s × {len(card.leads)} leads",
            hint="prepare the data set with the bundle's sampling_rate_hz and duration_s",
        )
    overlap = sorted(set(facts.seen_folds) & set(test.folds)) if card.source == facts.dataset_source else []
    if overlap:
        raise ConfigError(
            f"`folds.test` holds fold {_folds(tuple(overlap))}, which trained the bundle or chose its checkpoint",
            hint=f"train folds were {_folds(facts.train_folds)}, validation {facts.validation}, earlier "
            f"{_folds(facts.earlier_folds) or 'none'}",
        )


def _prompt_table(
    config: Config, bundle: Bundle, prompt_set: PromptSet, tasks: dict[str, LabelSet], dataset_uri: str
) -> EmbeddingTable:
    """Vectors of the prompts: from the bundle, or from the same LM where the bundle does not know them."""
    prompts = prompt_texts([prompt_set], tasks)
    if not bundle.prompts.missing(prompts):
        return bundle.prompts
    facts = bundle.facts
    settings = config.text.model_copy(
        update={"model": facts.text_model, "pooling": facts.text_pooling, "max_length": facts.text_max_length}
    )
    embedded = text.embed_texts(settings, text.store_uri(config, dataset_uri), reports=[], prompts=prompts)
    if embedded.fingerprint != facts.text_fingerprint:
        raise CheckpointError(
            f"the LM `{facts.text_model}` found here has fingerprint {embedded.fingerprint[:16]}, not "
            f"{facts.text_fingerprint[:16]}, with which the bundle was trained",
            hint="give the workers the same LM weights, or use a prompt set that the bundle holds",
        )
    return embedded.table


def _score(
    config: Config, label_set: LabelSet, similarity: np.ndarray, truth: np.ndarray, patients: np.ndarray
) -> TaskScore:
    intervals = bootstrap_macro_auroc(
        similarity, truth, patients, samples=config.evaluate.bootstrap_samples, seed=config.seed
    )
    _, precisions = average_precision(similarity, truth)
    classes = tuple(
        ClassScore(
            name, intervals.per_class[column], float(precisions[column]), int(truth[:, column].sum()), len(truth)
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
    return draw_roc(curves, f"{score.task}: zero-shot, macro AUROC {_interval(score.macro)}{suffix}")


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
    table = report_table(result, f"{prompt_set.name} version {prompt_set.version}")
    say(table)
    storage.write_bytes(storage.join(result.result_uri, "table.md"), table.encode())
    metrics: dict[str, Any] = {
        "macro_auroc": _number(result.macro_auroc),
        "over": result.over,
        "notices": result.notices,
        "tasks": {
            task.task: {
                **task_figures(task.macro),
                "records": task.records,
                "classes": {
                    row.name: {
                        **task_figures(row.auroc),
                        "average_precision": _number(row.average_precision),
                        "positives": row.positives,
                        "scored": row.scored,
                    }
                    for row in task.classes
                },
            }
            for task in result.tasks
        },
        "bundle_uri": bundle_uri,
        "dataset_sha256": card.content_sha256,
        "train_folds": facts.train_folds,
        "test_folds": config.folds.test,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "bootstrap": {"samples": config.evaluate.bootstrap_samples, "seed": config.seed, "unit": "patient"},
    }
    storage.write_bytes(storage.join(result.result_uri, "metrics.json"), json.dumps(metrics, indent=1).encode())


def task_figures(interval: Interval) -> dict[str, float | None]:
    """{value, lo, hi}, None where not defined."""
    return {"value": _number(interval.value), "lo": _number(interval.low), "hi": _number(interval.high)}


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _folds(folds: tuple[int, ...]) -> str:
    return ", ".join(map(str, folds))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
