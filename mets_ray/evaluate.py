"""Zero-shot evaluation: embed the test folds with a bundle, score them against class prompts, write the report."""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mets_ray import storage, tables, text
from mets_ray.balanced import score_balanced, sets_of_task
from mets_ray.baselines import score_baselines
from mets_ray.checkpoint import MANIFEST_NAME, Bundle, BundleFacts, load_bundle
from mets_ray.config import Config
from mets_ray.console import say
from mets_ray.embed import embed_records
from mets_ray.embedded import EmbeddedRecords
from mets_ray.errors import ConfigError, MetsError
from mets_ray.evaluation_page import Drawn, evaluation_page, tables_page
from mets_ray.evaluation_pictures import embedding_map, map_rows
from mets_ray.evidence import gather_evidence, read_examples
from mets_ray.examples import choose_examples
from mets_ray.folds import Selection
from mets_ray.report import LabelSet, PromptSet
from mets_ray.report_page import markdown, render
from mets_ray.scene import Scene
from mets_ray.schema import DatasetCard
from mets_ray.score_files import TaskSimilarities, read_similarities, write_similarities
from mets_ray.scoring import compare, roc_picture, score_task
from mets_ray.shard_reader import DatasetIndex, check_patients, read_card, read_index
from mets_ray.tables import Comparison, Evaluated, interval_json, number_json
from mets_ray.tasks import check_prompts, check_signal, choose_tasks, read_prompt_set, task_scores
from mets_ray.text_store import EmbeddingTable

REPORT_NAME = "report.html"
_PUBLISHED_TEST_FOLD = 10


def evaluate(config: Config, dataset_uri: str, bundle_uri: str, command: str = "") -> Evaluated:
    """Score `folds.test` of a prepared data set with a bundle; write `report.html`, tables, `metrics.json` and scores.

    command: how it was called, for the report. Raises CheckpointError where bundle and data set do not fit,
    DatasetError for a patient that the bundle was trained on, ConfigError for unknown tasks or prompts.
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
    prompts = text.prompt_table(config, bundle, prompt_set, tasks, dataset_uri)
    scores = _similarities(bundle, prompt_set, prompts, tasks, records)
    if not scores:
        raise ConfigError(
            f"no record of `folds.test` {list(test.folds)} has a class of {', '.join(tasks)}",
            hint="name other folds, or other evaluate.tasks",
        )
    scene = Scene(
        config, dataset_uri, card, index, test, bundle_uri, bundle, prompt_set, prompts, tasks, records, scores
    )
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    result_uri = storage.join(storage.absolute(config.run_uri), f"evaluate-{stamp}-{prompt_set.name}")
    result = _score(scene, result_uri, alarms)
    drawn = _drawn(scene)
    _write(result, scene, drawn, command)
    return result


def _score(scene: Scene, result_uri: str, alarms: list[str]) -> Evaluated:
    settings, seed = scene.config.evaluate, scene.config.seed
    scored = [score_task(of, samples=settings.bootstrap_samples, seed=seed) for of in scene.scores.values()]
    balanced = [
        score_balanced(
            of_task,
            of.classes,
            of.similarity,
            of.truth,
            of.patients,
            per_class=settings.balanced_per_class,
            samples=settings.bootstrap_samples,
            seed=seed,
        )
        for task, of in scene.scores.items()
        for of_task in sets_of_task(task)
    ]
    evidence = gather_evidence(scene)
    values = [score.macro.value for score in scored if not math.isnan(score.macro.value)]
    return Evaluated(
        result_uri=result_uri,
        macro_auroc=sum(values) / len(values) if values else math.nan,
        over=f"mean of {len(values)} tasks' macro AUROC ({', '.join(score.task for score in scored)}), "
        f"{len(scene.records.record_ids)} records of folds {_folds(scene.test.folds)}",
        tasks=tuple(scored),
        balanced=tuple(balanced),
        notices=(*_notices(scene.card, scene.bundle.facts, scene.test), *evidence.gaps),
        pictures=tuple(storage.join(result_uri, f"roc_{score.task}.png") for score in scored),
        alarms=tuple(alarms),
        baselines=tuple(score_baselines(scene)),
        compared_to=settings.compare_to or "",
        comparisons=tuple(_comparisons(scene)) if settings.compare_to else (),
        calibrated=evidence.calibrated,
        wordings=evidence.wordings,
        retrieval=evidence.retrieval,
    )


def _drawn(scene: Scene) -> Drawn:
    say("drawing the report")
    records, seed = scene.records, scene.config.seed
    examples = [example for of in scene.scores.values() for example in choose_examples(of)]
    rows = map_rows(len(records.record_ids), seed)
    return Drawn(
        scores=scene.scores,
        record_ids=records.record_ids,
        map_rows=rows,
        map_points=embedding_map(records.embeddings[rows], seed),
        examples=examples,
        signals_uv=read_examples(scene, examples),
        leads=scene.card.leads,
        sampling_rate_hz=scene.card.sampling_rate_hz,
        synthetic=scene.card.synthetic,
    )


def figures(result: Evaluated) -> dict[str, Any]:
    """The machine-readable end of a job."""
    return {
        "result_uri": result.result_uri,
        "report_uri": storage.join(result.result_uri, REPORT_NAME),
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
            task.task: {row.name: number_json(row.macro.value) for row in result.baselines if row.task == task.task}
            for task in result.tasks
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
    bundle: Bundle, prompt_set: PromptSet, prompts: EmbeddingTable, tasks: Mapping[str, LabelSet],
    records: EmbeddedRecords,
) -> dict[str, TaskSimilarities]:  # fmt: skip
    """By task, without those of which no record has a class."""
    found = {}
    for task, label_set in tasks.items():
        similarity, truth, kept = task_scores(
            bundle.model, prompt_set, label_set, prompts, records.embeddings, records.labels
        )
        if len(truth):
            names = tuple(name for name, keep in zip(records.record_ids, kept, strict=True) if keep)
            found[task] = TaskSimilarities(
                task, tuple(label_set.classes), names, records.patients[kept], similarity, truth
            )
    return found


def _comparisons(scene: Scene) -> Iterator[Comparison]:
    """The paired difference of each task to another bundle, or to the files of an earlier evaluation."""
    config, settings = scene.config, scene.config.evaluate
    assert settings.compare_to is not None
    uri = storage.absolute(settings.compare_to)
    others: dict[str, TaskSimilarities]
    if storage.exists(storage.join(uri, MANIFEST_NAME)):
        bundle = load_bundle(uri)
        for alarm in _check_fit(config, scene.card, bundle.facts, scene.test, scene.index):
            say(f"ALARM, of the bundle to compare with: {alarm}")
        records = embed_records(config, scene.dataset_uri, scene.index, scene.test, uri, key="folds.test")
        prompts = text.prompt_table(config, bundle, scene.prompt_set, scene.tasks, scene.dataset_uri)
        others = _similarities(bundle, scene.prompt_set, prompts, scene.tasks, records)
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


def _write(result: Evaluated, scene: Scene, drawn: Drawn, command: str) -> None:
    card, facts, prompt_set, config = scene.card, scene.bundle.facts, scene.prompt_set, scene.config
    title = f"Zero-shot ECG diagnosis: {facts.run} on {card.source}"
    table = markdown(tables_page(result, title, config.seed, card.notes))
    say(table)
    page_facts = _page_facts(scene, command)
    files = {
        "table.md": table,
        REPORT_NAME: render(evaluation_page(result, drawn, title, page_facts, config.seed, card.notes)),
        "auroc.csv": tables.auroc_csv(result),
        "balanced.csv": tables.balanced_csv(result),
        "wordings.csv": tables.wordings_csv(result),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(result.result_uri, name), content.encode())
    for score, uri in zip(result.tasks, result.pictures, strict=True):
        storage.write_bytes(uri, roc_picture(score, scene.scores[score.task], synthetic=card.synthetic))
    origin = {"bundle_run": facts.run, "prompt_set": prompt_set.sha256, "dataset": card.content_sha256}
    for of in scene.scores.values():
        write_similarities(result.result_uri, of, origin)
    metrics: dict[str, Any] = {
        "macro_auroc": number_json(result.macro_auroc),
        "over": result.over,
        "notices": result.notices,
        "alarms": result.alarms,
        "baselines": [tables.baseline_json(row) for row in result.baselines],
        "compared_to": result.compared_to,
        "differences": {
            row.task: {**interval_json(row.difference), "records": row.records} for row in result.comparisons
        },
        "tasks": {task.task: tables.task_json(task) for task in result.tasks},
        "balanced": {score.set.name: tables.balanced_json(score) for score in result.balanced},
        "calibrated": {task: tables.calibrated_json(found) for task, found in result.calibrated.items()},
        "retrieval": tables.retrieval_json(result.retrieval) if result.retrieval else None,
        "published": tables.published_json(result),
        "bundle_uri": scene.bundle_uri,
        "dataset_sha256": card.content_sha256,
        "split_sha256": _split_sha256(scene),
        "train_folds": facts.train_folds,
        "test_folds": config.folds.test,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "bootstrap": {"samples": config.evaluate.bootstrap_samples, "seed": config.seed, "unit": "patient"},
        "command": command,
        "versions": _versions(),
    }
    # Last, so that a folder without it is no finished result.
    storage.write_bytes(storage.join(result.result_uri, "metrics.json"), json.dumps(metrics, indent=1).encode())


def _page_facts(scene: Scene, command: str) -> dict[str, str]:
    card, facts, prompt_set, config = scene.card, scene.bundle.facts, scene.prompt_set, scene.config
    patients = len(set(scene.records.patients.tolist()))
    return {
        "bundle": f"{facts.run}, {scene.bundle_uri}",
        "language model": f"{facts.text_model}, {facts.text_pooling}, fingerprint {facts.text_fingerprint[:16]}",
        "prompt set": f"{prompt_set.name} version {prompt_set.version}, sha256 {prompt_set.sha256[:16]}",
        "data": f"{card.source}, {card.sampling_rate_hz} Hz × {card.duration_s:g} s × {len(card.leads)} leads, "
        f"sha256 {card.content_sha256[:16]}",
        "trained on": f"{facts.dataset_source}, folds {_folds(facts.train_folds)}, sha256 {facts.dataset_sha256[:16]}",
        "tested on": f"folds {_folds(scene.test.folds)}: {len(scene.records.record_ids):,} records of {patients:,} "
        f"patients, sha256 of their ids {_split_sha256(scene)[:16]}",
        "intervals": f"95%, {config.evaluate.bootstrap_samples:,} draws of patients, seed {config.seed}",
        "made": f"{datetime.now().astimezone().isoformat(timespec='seconds')}, "
        + ", ".join(f"{name} {version}" for name, version in _versions().items()),
        "command": command or "(called from Python)",
    }


def _split_sha256(scene: Scene) -> str:
    """Of the ids of the test records, in order: two results with the same one were scored on the same records."""
    return hashlib.sha256("\n".join(scene.records.record_ids).encode()).hexdigest()


def _versions() -> dict[str, str]:
    names = ("mets-ray", "ray", "torch", "transformers", "scikit-learn", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _folds(folds: tuple[int, ...]) -> str:
    return ", ".join(map(str, folds))
