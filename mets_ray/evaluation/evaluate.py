"""Zero-shot evaluation: embed the test folds with a bundle, score them against class prompts, write the report."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np

from mets_ray import bundles, storage
from mets_ray.bundles import MANIFEST_NAME
from mets_ray.config.settings import Config, FoldsConfig
from mets_ray.console import say
from mets_ray.dataset.card import read_card
from mets_ray.dataset.folds import listed
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError
from mets_ray.evaluation.analyses import explain_examples, gather_evidence, read_examples
from mets_ray.evaluation.balanced import score_balanced_sets
from mets_ray.evaluation.baselines import score_baselines
from mets_ray.evaluation.calibrate import write_calibrations
from mets_ray.evaluation.calibration_drift import find_calibration_drift
from mets_ray.evaluation.checks import check_fit, choose_parts, choose_test, notices_of
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.evaluation.label_curve import label_curve
from mets_ray.evaluation.lead_sets import score_fewer_leads, sets_to_score
from mets_ray.evaluation.reference import write_reference
from mets_ray.evaluation.subgroups import find_subgroups
from mets_ray.evaluation.write import METRICS_NAME, REPORT_NAME, write_result, write_six_sets
from mets_ray.metrics.calibration_drift import drifted
from mets_ray.metrics.extremes import choose_examples
from mets_ray.metrics.intervals import Interval, interval_json, number_json
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import Comparison, compare, mean_of_tasks, score_task
from mets_ray.model.bundle import check_signal, read_facts
from mets_ray.model.predictor import load_predictor
from mets_ray.pictures.curves import roc_picture
from mets_ray.pictures.embedding_map import embedding_map, map_rows
from mets_ray.pipelines.embed import EmbeddedRecords, embed_parts, embed_records
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.results.calibration_drift_section import drift_notice
from mets_ray.results.evaluation_page import Drawn, draw_curve
from mets_ray.results.export import recalls_json
from mets_ray.results.similarity_files import read_similarities
from mets_ray.results.six_sets import six_sets_json
from mets_ray.results.values import Evaluated
from mets_ray.tasks.questions import Questions, unknown_labels


def evaluate(config: Config, dataset_uri: str, bundle_uri: str, command: str = "") -> Evaluated:
    """Score `folds.test` of a prepared data set with a bundle; write `report.html`, tables, `metrics.json` and scores.

    command: the command line, for the report. Raises CheckpointError if bundle and data set do not match, DatasetError
    if the bundle was trained on a test patient, ConfigError for unknown tasks or prompts.
    """
    dataset = PreparedDataset.open(dataset_uri)
    predictor = load_predictor(bundle_uri, encoder_runtime=config.encoder_runtime)
    test, notices = choose_test(config.folds.test, dataset)
    alarms = check_fit(config, dataset, predictor.facts, test)
    for line in (*alarms, *notices):
        say(line)
    questions = Questions.read(config.evaluate.prompt_set, dataset.card.source, config.evaluate.tasks)
    parts, not_calibrated = choose_parts(config, dataset, predictor.bundle, test)
    embedded = embed_parts(config, dataset, parts, bundle_uri, lead_sets=sets_to_score(predictor.bundle))
    records = embedded.bundle["folds.test"]
    learn_prompts(config, predictor, questions.texts(), dataset)
    scores = similarities_by_task(predictor, questions, records)
    if not scores:
        found = unknown_labels(questions.tasks, records.labels)
        raise ConfigError(
            f"no record of `folds.test` {list(test.folds)} has a class of {', '.join(questions.tasks)}; "
            f"their labels are {', '.join(f'`{label}`' for label in found[:20]) or 'none'}",
            hint="choose other folds or evaluate.tasks, or give a prompt file with class names that match the labels",
        )
    # The map of the test records needs a core of its own for seconds, and nothing but their embeddings.
    mapped = ThreadPoolExecutor(1, "map").submit(_mapped, records, config.seed)
    inputs = EvaluationInputs(config, dataset, test, bundle_uri, predictor, questions, embedded, scores, not_calibrated)
    # The four digits tell apart what two jobs of one run_uri start in the same second.
    name = f"evaluate-{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}-{questions.prompts.name}"
    result_uri = storage.join(storage.absolute(config.run_uri), name)
    result = _score(inputs, result_uri, alarms, notices)
    drawn = _drawn(inputs, result, *mapped.result())
    write_result(result, inputs, drawn, command)
    return result


def evaluate_all(config: Config, dataset_uri: str, bundle_uri: str, command: str = "") -> list[Evaluated]:
    """Run `evaluate`, then score all folds of each data set in `evaluate.also` and write the table of the six sets.

    Without `evaluate.also` there is no such table. Raises as `evaluate`. The signals of the data sets in
    `evaluate.also` are checked before anything is scored.
    """
    also = [storage.absolute(uri) for uri in config.evaluate.also]
    cards = [read_card(uri) for uri in also]
    for card in cards:
        check_signal(card.signal, read_facts(bundle_uri))
    results = [evaluate(config, dataset_uri, bundle_uri, command)]
    for uri, card in zip(also, cards, strict=True):
        folds = FoldsConfig(train=(), validation=(), test=tuple(card.folds))
        learns = ("linear_probe", "text_head", "supervised")
        unlearnt = tuple(name for name in config.evaluate.baselines if name not in learns)
        settings = config.evaluate.model_copy(update={"tasks": None, "compare_to": None, "baselines": unlearnt})
        other = config.model_copy(update={"folds": folds, "evaluate": settings})
        results.append(evaluate(other, uri, bundle_uri, command))
    if also:
        write_six_sets(results)
    return results


def _score(inputs: EvaluationInputs, result_uri: str, alarms: list[str], notices: list[str]) -> Evaluated:
    settings, seed = inputs.config.evaluate, inputs.config.seed
    patients = inputs.records.patients
    scored = [
        score_task(of, samples=settings.bootstrap_samples, seed=seed, drawn_from=patients)
        for of in inputs.scores.values()
    ]
    evidence = gather_evidence(inputs)
    drift, about_drift = find_calibration_drift(inputs, evidence.calibrated)
    reference_uri, about_reference = write_reference(inputs, result_uri)
    calibration_uri, about_calibration = write_calibrations(inputs, evidence.calibrated, result_uri)
    baselines = tuple(score_baselines(inputs))
    comparisons, of_other = _comparisons(inputs) if settings.compare_to else ((), ())
    defined = sum(not math.isnan(score.macro.value) for score in scored)
    return Evaluated(
        result_uri=result_uri,
        macro_auroc=mean_of_tasks(scored).value,
        over=f"mean of {defined} tasks' macro AUROC ({', '.join(score.task for score in scored)}), "
        f"{len(inputs.records.record_ids)} records of folds {listed(inputs.test.folds)}",
        tasks=tuple(scored),
        balanced=score_balanced_sets(inputs),
        notices=(
            *notices,
            *notices_of(inputs),
            *evidence.gaps,
            *about_calibration,
            *about_drift,
            *about_reference,
            *drift_notice(drift),
        ),
        pictures=tuple(storage.join(result_uri, f"roc_{score.task}.png") for score in scored),
        alarms=(*alarms, *of_other),
        baselines=baselines,
        compared_to=settings.compare_to or "",
        comparisons=comparisons,
        calibrated=evidence.calibrated,
        calibration_uri=calibration_uri,
        wordings=evidence.wordings,
        retrieval=evidence.retrieval,
        lead_sets=score_fewer_leads(inputs),
        subgroups=find_subgroups(inputs),
        calibration_drift=drift,
        reference_uri=reference_uri,
        label_curve=label_curve(inputs, baselines),
    )


def _mapped(records: EmbeddedRecords, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the records on the map, and their points."""
    rows = map_rows(len(records.record_ids), seed)
    return rows, embedding_map(records.embeddings[rows], seed)


def _drawn(inputs: EvaluationInputs, result: Evaluated, rows: np.ndarray, points: np.ndarray) -> Drawn:
    say("drawing the report")
    records = inputs.records
    examples = [example for of in inputs.scores.values() for example in choose_examples(of)]
    signals_uv = read_examples(inputs, examples)
    return Drawn(
        scores=inputs.scores,
        roc_pictures={
            task.task: roc_picture(task, inputs.scores[task.task], synthetic=inputs.dataset.card.synthetic)
            for task in result.tasks
        },
        record_ids=records.record_ids,
        map_rows=rows,
        map_points=points,
        examples=examples,
        signals_uv=signals_uv,
        leads=inputs.dataset.card.leads,
        sampling_rate_hz=inputs.dataset.card.sampling_rate_hz,
        synthetic=inputs.dataset.card.synthetic,
        shadings=explain_examples(inputs, examples, signals_uv),
        label_curve=draw_curve(result, synthetic=inputs.dataset.card.synthetic),
    )


def figures(results: Sequence[Evaluated]) -> dict[str, Any]:
    """The machine-readable summary that the job prints at the end."""
    result, *others = results
    told = _figures(result)
    if others:
        told |= {"also": [_figures(other) for other in others], "six_sets": six_sets_json(results)}
    return told


def _figures(result: Evaluated) -> dict[str, Any]:
    return {
        "result_uri": result.result_uri,
        "report_uri": storage.join(result.result_uri, REPORT_NAME),
        "table_uri": storage.join(result.result_uri, "table.md"),
        "picture_uris": list(result.pictures),
        "calibration_uri": result.calibration_uri or None,
        "reference_uri": result.reference_uri or None,
        "subgroups_that_differ": [
            f"{row.task}, {row.attribute}: {row.group}" for row in result.subgroups.scores if row.differs
        ],
        "calibration_drift": [f"{task}, {row.name}" for task, row in drifted(result.calibration_drift)],
        "macro_auroc": number_json(result.macro_auroc),
        "over": result.over,
        "tasks": {task.task: interval_json(task.macro) for task in result.tasks},
        "balanced": {
            score.set.name: {
                "per_class": score.per_class,
                **_values(score.scores),
                "recalls": recalls_json(score, score),
                "standardised": {
                    levels: {**_values(of.scores), "recalls": recalls_json(score, of)}
                    for levels, of in score.standardised.items()
                },
            }
            for score in result.balanced
        },
        "baselines": {
            task.task: {row.name: number_json(row.macro.value) for row in result.baselines if row.task == task.task}
            for task in result.tasks
        },
        "lead_sets": {row.name: interval_json(row.macro) for row in result.lead_sets},
        "differences": {row.task: interval_json(row.difference) for row in result.comparisons},
        "notices": [*result.alarms, *result.notices],
    }


def _values(scores: Mapping[str, Interval]) -> dict[str, float | None]:
    return {name: number_json(interval.value) for name, interval in scores.items()}


def _comparisons(inputs: EvaluationInputs) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """The paired difference of each task from another bundle, or from the result files of an earlier evaluation, and
    what made the other's scores misleading."""
    config, settings = inputs.config, inputs.config.evaluate
    assert settings.compare_to is not None
    uri = bundles.absolute(settings.compare_to)
    others: dict[str, TaskSimilarities]
    if storage.exists(storage.join(bundles.locate(uri), MANIFEST_NAME)):
        other_bundle = load_predictor(uri)
        alarms = check_fit(config, inputs.dataset, other_bundle.facts, inputs.test)
        records = embed_records(config, inputs.dataset, inputs.test, uri, key="folds.test")
        learn_prompts(config, other_bundle, inputs.questions.texts(), inputs.dataset)
        others = similarities_by_task(other_bundle, inputs.questions, records)
    else:
        alarms = _alarms_of(uri)
        read = {task: read_similarities(uri, task) for task in inputs.scores}
        others = {task: scores for task, scores in read.items() if scores is not None}
    if not others:
        raise ConfigError(
            f"`evaluate.compare_to` is `{uri}`, which is not a bundle and has no scores for {', '.join(inputs.scores)}",
            hint="give a bundle, or the result_uri that jobs/evaluate.py printed",
        )
    told = tuple(f"Of what this result is compared with: {alarm}" for alarm in alarms)
    for line in told:
        say(line)
    return tuple(
        compare(inputs.scores[task], other, samples=settings.bootstrap_samples, seed=config.seed)
        for task, other in others.items()
    ), told


def _alarms_of(result_uri: str) -> list[str]:
    """Those of an earlier evaluation, in its `metrics.json`."""
    uri = storage.join(result_uri, METRICS_NAME)
    return list(json.loads(storage.read_bytes(uri)).get("alarms", [])) if storage.exists(uri) else []
