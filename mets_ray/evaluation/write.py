"""Output files of an evaluation: the page, tables, scores by record, and all figures as JSON."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mets_ray import storage
from mets_ray.console import say
from mets_ray.dataset.folds import listed
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.intervals import interval_json, number_json
from mets_ray.results import export
from mets_ray.results.calibration_drift_section import calibration_drift_json
from mets_ray.results.evaluation_page import Drawn, evaluation_page, tables_page
from mets_ray.results.label_curve import CSV_NAME, PICTURE_NAME, curve_point_json, label_curve_csv
from mets_ray.results.page import Page, markdown, render
from mets_ray.results.similarity_files import write_similarities
from mets_ray.results.six_sets import six_sets_json, six_sets_section
from mets_ray.results.subgroup_section import SUBGROUPS_NAME, subgroups_csv, subgroups_json
from mets_ray.results.values import Evaluated

REPORT_NAME = "report.html"
METRICS_NAME = "metrics.json"


def write_result(result: Evaluated, inputs: EvaluationInputs, drawn: Drawn, command: str) -> None:
    """Write all files to `result.result_uri`, `metrics.json` last: a folder without it is an unfinished result."""
    card, facts, config = inputs.dataset.card, inputs.predictor.facts, inputs.config
    prompt_set = inputs.questions.prompts
    title = f"Zero-shot ECG diagnosis: {facts.run} on {card.source}"
    table = markdown(tables_page(result, title, config.seed, card.notes))
    say(table)
    say(f"report: {storage.join(result.result_uri, REPORT_NAME)}")
    page_facts = _page_facts(inputs, command)
    files = {
        "table.md": table,
        REPORT_NAME: render(evaluation_page(result, drawn, title, page_facts, config.seed, card.notes)),
        "auroc.csv": export.auroc_csv(result),
        "balanced.csv": export.balanced_csv(result),
        "wordings.csv": export.wordings_csv(result),
        SUBGROUPS_NAME: subgroups_csv(result.subgroups),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(result.result_uri, name), content.encode())
    if drawn.label_curve is not None:
        storage.write_bytes(storage.join(result.result_uri, CSV_NAME), label_curve_csv(result.label_curve).encode())
        storage.write_bytes(storage.join(result.result_uri, PICTURE_NAME), drawn.label_curve)
    for score, uri in zip(result.tasks, result.pictures, strict=True):
        storage.write_bytes(uri, drawn.roc_pictures[score.task])
    origin = {"bundle_run": facts.run, "prompt_set": prompt_set.sha256, "dataset": card.content_sha256}
    for of in inputs.scores.values():
        write_similarities(result.result_uri, of, origin)
    for row in result.baselines:
        if row.scores is not None:
            write_similarities(result.result_uri, row.scores, origin, row.folder)
    metrics: dict[str, Any] = {
        "macro_auroc": number_json(result.macro_auroc),
        "over": result.over,
        "notices": result.notices,
        "alarms": result.alarms,
        "baselines": [export.baseline_json(row) for row in result.baselines],
        "compared_to": result.compared_to,
        "differences": {
            row.task: {**interval_json(row.difference), "records": row.records} for row in result.comparisons
        },
        "tasks": {task.task: export.task_json(task) for task in result.tasks},
        "balanced": {score.set.name: export.balanced_json(score) for score in result.balanced},
        "calibrated": {task: export.calibrated_json(found) for task, found in result.calibrated.items()},
        "calibration_uri": result.calibration_uri or None,
        "retrieval": export.retrieval_json(result.retrieval) if result.retrieval else None,
        "lead_sets": {score.name: export.lead_set_json(score) for score in result.lead_sets},
        "subgroups": subgroups_json(result.subgroups),
        "calibration_drift": calibration_drift_json(result.calibration_drift),
        "reference_uri": result.reference_uri or None,
        "label_curve": [curve_point_json(point) for point in result.label_curve],
        "published": export.published_json(result),
        "bundle_uri": inputs.bundle_uri,
        "dataset_sha256": card.content_sha256,
        "split_sha256": _split_sha256(inputs),
        "train_folds": facts.train_folds,
        "test_folds": config.folds.test,
        "prompt_set": {"name": prompt_set.name, "version": prompt_set.version, "sha256": prompt_set.sha256},
        "bootstrap": {"samples": config.evaluate.bootstrap_samples, "seed": config.seed, "unit": "patient"},
        "command": command,
        "versions": _versions(),
    }
    storage.write_bytes(storage.join(result.result_uri, METRICS_NAME), json.dumps(metrics, indent=1).encode())


def write_six_sets(results: Sequence[Evaluated]) -> None:
    """Print the table of the six sets and save it as `six_sets.md` and `six_sets.json` in the first result's folder."""
    first = results[0]
    alarms = tuple(dict.fromkeys(alarm for result in results for alarm in result.alarms))
    notices = tuple(dict.fromkeys(notice for result in results for notice in result.notices))
    table = markdown(Page("The six sets of the literature", notices, alarms, {}, (six_sets_section(results),)))
    say(table)
    storage.write_bytes(storage.join(first.result_uri, "six_sets.md"), table.encode())
    facts = json.dumps(six_sets_json(results), indent=1)
    storage.write_bytes(storage.join(first.result_uri, "six_sets.json"), facts.encode())


def _page_facts(inputs: EvaluationInputs, command: str) -> dict[str, str]:
    card, facts, config = inputs.dataset.card, inputs.predictor.facts, inputs.config
    prompt_set = inputs.questions.prompts
    patients = len(set(inputs.records.patients.tolist()))
    return {
        "bundle": f"{facts.run}, {inputs.bundle_uri}",
        "language model": f"{facts.text_model}, {facts.text_pooling}, fingerprint {facts.text_fingerprint[:16]}",
        "prompt set": f"{prompt_set.name} version {prompt_set.version}, sha256 {prompt_set.sha256[:16]}",
        "data": f"{card.source}, {card.signal}, sha256 {card.content_sha256[:16]}",
        "trained on": f"{facts.dataset_source}, folds {listed(facts.train_folds)}, sha256 {facts.dataset_sha256[:16]}",
        "tested on": f"folds {listed(inputs.test.folds)}: {len(inputs.records.record_ids):,} records of {patients:,} "
        f"patients, sha256 of their ids {_split_sha256(inputs)[:16]}",
        "intervals": f"95%, {config.evaluate.bootstrap_samples:,} bootstrap resamples of patients, seed {config.seed}",
        "made": f"{datetime.now().astimezone().isoformat(timespec='seconds')}, "
        + ", ".join(f"{name} {version}" for name, version in _versions().items()),
        "command": command or "(called from Python)",
    }


def _split_sha256(inputs: EvaluationInputs) -> str:
    """Hash of the ordered test record ids: two results with the same hash were scored on the same records."""
    return hashlib.sha256("\n".join(inputs.records.record_ids).encode()).hexdigest()


def _versions() -> dict[str, str]:
    names = ("mets-ray", "ray", "torch", "transformers", "scikit-learn", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
