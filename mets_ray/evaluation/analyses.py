"""Context for judging a score: calibration, prompt wordings, retrieval, and the ECGs that scored best and worst.

Each part needs something from the data set. A part that cannot be computed is skipped, and `Evidence.gaps` says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from mets_ray.dataset.shard_reader import signals
from mets_ray.errors import MetsError
from mets_ray.evaluation.calibrate import fit_calibrations
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.calibration import Calibrated
from mets_ray.metrics.extremes import Example
from mets_ray.metrics.retrieval import retrieval_recall
from mets_ray.metrics.sensitivity import wording_sensitivity
from mets_ray.model.zero_shot import report_embeddings, wording_similarities
from mets_ray.pictures.ecg import Shading
from mets_ray.pipelines.texts import report_statements, report_table
from mets_ray.results.values import ClassWordings, Retrieval
from mets_ray.tasks.prompt_sets import prompt_texts
from mets_ray.text.reports import apply_template, text_id
from mets_ray.text.statements import ReportStatements


@dataclass(frozen=True)
class Evidence:
    """All parts, by task; `gaps` says what is missing and why."""

    calibrated: dict[str, Calibrated]
    wordings: dict[str, dict[str, ClassWordings]]
    retrieval: Retrieval | None
    gaps: tuple[str, ...]


def gather_evidence(inputs: EvaluationInputs) -> Evidence:
    """Calibration on the validation folds of this data set, wording sensitivity, and retrieval."""
    gaps = []
    calibrated: dict[str, Calibrated] = {}
    retrieval = None
    try:
        calibrated = fit_calibrations(inputs)
    except MetsError as error:
        gaps.append(f"Not calibrated: {error.fact}.")
    try:
        retrieval = _retrieval(inputs)
    except MetsError as error:
        gaps.append(f"No retrieval: {error.fact}.")
    return Evidence(calibrated, _wordings(inputs), retrieval, tuple(gaps))


def read_examples(inputs: EvaluationInputs, examples: Iterable[Example]) -> dict[str, np.ndarray]:
    """int16 µV [lead, sample] by record id; for a recording cut into windows, the first window."""
    records = inputs.records
    row_of = dict(zip(records.record_ids, records.row_ids, strict=True))
    wanted = {row_of[example.record_id]: example for example in examples}
    found: dict[str, np.ndarray] = {}
    patients, index = {example.patient for example in wanted.values()}, inputs.dataset.index
    holding = {group for group, of_group in zip(index.groups, index.patients, strict=True) if patients & set(of_group)}
    for group in inputs.dataset.row_groups(inputs.test):
        if (group.path, group.index) not in holding:
            continue
        table = inputs.dataset.read(group, inputs.test)
        names = table["record_id"].to_pylist()
        rows = [row for row, name in enumerate(names) if name in wanted]
        if rows:
            of_rows = zip(rows, signals(table.take(rows)), strict=True)
            found |= {wanted[names[row]].record_id: signal for row, signal in of_rows}
    return found


def explain_examples(
    inputs: EvaluationInputs, examples: Iterable[Example], signals_uv: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], Shading]:
    """What carries the class of each example, by task and record id. signals_uv: as `read_examples`."""
    found = {}
    for example in examples:
        classes = inputs.questions.classes(example.task)
        vectors = inputs.predictor.class_vectors(classes)
        assert vectors is not None, f"the prompts of `{example.task}` were not learnt"
        explained = inputs.predictor.explain_window(
            signals_uv[example.record_id],
            {example.class_name: vectors[list(classes).index(example.class_name)].numpy()},
            inputs.dataset.card.focus,
        )
        drops = dict(zip(explained.leads, explained.classes[0].drops, strict=True))
        found[example.task, example.record_id] = Shading(drops, explained.segment_s)
    return found


def _wordings(inputs: EvaluationInputs) -> dict[str, dict[str, ClassWordings]]:
    """Wordings of the prompt set, and of the bundle's prompt sets that cover a task's classes."""
    found = {}
    for task, of in inputs.scores.items():
        label_set = inputs.questions.tasks[task]
        kept = np.isin(inputs.records.record_ids, of.record_ids)
        # The chosen set comes last: the bundle may hold the same set without its wordings for this task.
        of_bundle = inputs.predictor.facts.prompt_sets.values()
        sets = {known.sha256: known for known in (*of_bundle, inputs.questions.prompts)}
        prompts: dict[str, list[str]] = {name: [] for name in label_set.classes}
        cosines: dict[str, list[np.ndarray]] = {name: [] for name in label_set.classes}
        for known in sets.values():
            if not set(label_set.classes) <= set(known.tasks.get(task, {})):
                continue
            # A bundle holds the wordings of the tasks of its own source only.
            if inputs.predictor.missing_texts(prompt_texts([known], [task])):
                continue
            vectors = inputs.predictor.wording_vectors({name: known.tasks[task][name] for name in label_set.classes})
            alone = wording_similarities(vectors, inputs.records.embeddings[kept])
            for name, of_class in zip(label_set.classes, alone, strict=True):
                for prompt, column in zip(known.tasks[task][name], of_class.T, strict=True):
                    if prompt not in prompts[name]:
                        prompts[name].append(prompt)
                        cosines[name].append(column)
        sensitivities = wording_sensitivity([np.stack(cosines[name], axis=1) for name in label_set.classes], of.truth)
        found[task] = {
            name: ClassWordings(tuple(prompts[name]), sensitivity)
            for name, sensitivity in zip(label_set.classes, sensitivities, strict=True)
        }
    return found


def _retrieval(inputs: EvaluationInputs) -> Retrieval:
    """Retrieval on the test reports, embedded by the bundle's LM with the template used in training."""
    records, bundle = inputs.records, inputs.predictor.bundle
    if not inputs.dataset.card.has_reports:
        raise MetsError("this data set has no reports")
    texts = [apply_template(bundle.config.text.template, report) for report in records.reports]
    statements = None
    if bundle.config.text.unit == "statement":
        of_reports = report_statements(inputs.dataset, bundle.config.text.template, inputs.test)
        statements, parts = ReportStatements.build(of_reports), [part for of in of_reports.values() for part in of]
    table = report_table(inputs.config, bundle, texts if statements is None else parts, inputs.dataset)
    ids = np.asarray([text_id(one) for one in texts], dtype=np.int64)
    recall = retrieval_recall(records.embeddings, report_embeddings(bundle.model, table, statements, ids), ids)
    _, counts = np.unique(ids, return_counts=True)
    chance = {k: float(hypergeom.sf(0, len(ids), counts, min(k, len(ids))).mean()) for k in recall["text_to_ecg"]}
    return Retrieval(recall["ecg_to_text"], recall["text_to_ecg"], chance, len(ids), len(counts))
