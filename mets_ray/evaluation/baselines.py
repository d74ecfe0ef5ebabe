"""Baselines that put a zero-shot score in context: a random encoder, bare class names, chance, and training on labels.

Protocol of the supervised baselines: labels and folds follow Strodthoff et al. 2021 (doi:10.1109/JBHI.2020.3022989),
the label shares of 1, 10 and 100% follow MERL (Liu et al., ICML 2024). The test folds are scored once.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_errors
from mets_ray.console import say
from mets_ray.errors import ConfigError
from mets_ray.evaluation.checks import heads_to_score, learning_folds
from mets_ray.evaluation.frozen_task import FrozenTask
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.evaluation.label_curve import LINEAR_PROBE, TEXT_HEAD, supervised_method
from mets_ray.evaluation.supervised import SupervisedScores, learn_and_score
from mets_ray.metrics.auroc import chance_auroc
from mets_ray.metrics.linear_probe import fit_linear_probe, label_subset
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.results.values import HEAD, BaselineScore
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_files import read_prompt_set


def score_baselines(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """Score the bundle's own heads, and all of `evaluate.baselines`, in that order.

    Raises ConfigError if a baseline needs train or validation folds and there are none, DatasetError if patients in
    those folds are also in the test folds.
    """
    yield from _heads(inputs)
    kinds = {
        "random_encoder": _random_encoder,
        "class_names": _class_names,
        "permuted_labels": _permuted_labels,
        "linear_probe": _linear_probe,
        "text_head": _text_head,
        "supervised": _supervised,
    }
    for name in inputs.config.evaluate.baselines:
        say(f"baseline: {name}")
        yield from kinds[name](inputs)


def _random_encoder(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    seed, records = inputs.config.seed, inputs.embedded.untrained["folds.test"]
    found = similarities_by_task(inputs.predictor.untrained(seed), inputs.questions, records)
    for task, of in inputs.scores.items():
        yield inputs.baseline("randomly initialised", of, found[task].similarity, f"no training, seed {seed}")


def _class_names(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    questions = replace(inputs.questions, prompts=read_prompt_set("class_names"))
    learn_prompts(inputs.config, inputs.predictor, questions.texts(), inputs.dataset)
    found = similarities_by_task(inputs.predictor, questions, inputs.records)
    for task, of in inputs.scores.items():
        yield inputs.baseline("class names as prompts", of, found[task].similarity, "reports, no labels")


def _permuted_labels(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    settings = inputs.config.evaluate
    for task, of in inputs.scores.items():
        chance = chance_auroc(
            of.similarity, of.truth, of.patients, samples=settings.bootstrap_samples, seed=inputs.config.seed
        )
        note = f"the bundle's scores against labels permuted {settings.bootstrap_samples} times"
        yield BaselineScore("chance", task, chance, note)


def _linear_probe(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """Linear probes on the bundle's features and on those of an untrained encoder.

    The second row shows what pretraining adds: on many ECG benchmarks, a probe on random features comes close to one
    on pretrained features (Berger et al. 2026, arXiv:2602.17531).
    """
    config, embedded = inputs.config, inputs.embedded
    for baseline, parts in (
        (LINEAR_PROBE, embedded.bundle),
        ("linear probe, random encoder", embedded.untrained),
    ):
        train, validation, test = (parts[key] for key in ("folds.train", "folds.validation", "folds.test"))
        for task, of in inputs.scores.items():
            label_set = inputs.questions.tasks[task]
            truth, _ = label_matrix(label_set, train.labels)
            validation_truth, kept = label_matrix(label_set, validation.labels)
            _, tested = label_matrix(label_set, test.labels)
            for share in config.evaluate.label_shares:
                rows = label_subset(truth, train.patients, share, config.seed)
                probe = fit_linear_probe(
                    train.features[rows], truth[rows], validation.features[kept], validation_truth[kept]
                )
                patients = len(set(train.patients[rows].tolist()))
                note = _learnt_from(label_set, share, (len(rows), patients), probe.untrained_classes)
                note += f", C = {probe.inverse_penalty:g}"
                yield inputs.baseline(baseline, of, probe.scores(test.features[tested]), note, share, ecgs=len(rows))


def _text_head(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """A head in the bundle's embedding that begins at the zero-shot scores of the same words."""
    config = inputs.config
    for task, of in inputs.scores.items():
        frozen = FrozenTask.of(inputs, task)
        for share in config.evaluate.label_shares:
            rows = label_subset(frozen.truth, frozen.patients, share, config.seed)
            head, scores = frozen.text_head(rows)
            counts = (len(rows), len(set(frozen.patients[rows].tolist())))
            note = _learnt_from(inputs.questions.tasks[task], share, counts, (), still=head.untrained_classes)
            note += f", C = {head.inverse_penalty:g}"
            yield inputs.baseline(TEXT_HEAD, of, scores, note, share, ecgs=len(rows))


def _heads(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """The heads that are part of the bundle. A class that a head has not counts as AUROC 0.5."""
    for name in heads_to_score(inputs)[0]:
        facts = inputs.predictor.heads[name]
        label_set, of = inputs.questions.tasks[facts.task], inputs.scores[facts.task]
        _, tested = label_matrix(label_set, inputs.records.labels)
        classes = tuple(label_set.classes)
        scores = np.zeros((len(of.record_ids), len(classes)))
        columns = [classes.index(class_name) for class_name in facts.classes]
        scores[:, columns] = inputs.records.head_logits[name][tested]
        note = f"{facts.method}, {facts.records} labelled ECGs of {facts.patients} patients"
        if absent := [class_name for class_name in classes if class_name not in facts.classes]:
            note += f"; it has no {', '.join(absent)}, counted as AUROC 0.5"
        yield inputs.baseline(f"{HEAD}{name}", of, scores, note)


def _supervised(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    config = inputs.config
    if len(inputs.records.record_ids) != inputs.records.rows:
        raise ConfigError(
            "the baseline `supervised` uses one window per record, and this data set has several",
            hint="remove it from evaluate.baselines, or prepare with prepare.source.stretch=start",
        )
    folds = learning_folds(config, inputs.dataset, inputs.test, "the baseline `supervised`") | {"test": inputs.test}
    groups = {name: (inputs.dataset.row_groups(selection), selection) for name, selection in folds.items()}
    gpu = config.evaluate.num_gpus_per_actor > 0
    # Nothing else runs at this point, so the task gets all CPUs of one node.
    cpus = 1 if gpu else max(node.get("CPU", 0.0) for node in reachable_nodes())
    options = {"num_cpus": cpus, "num_gpus": 1 if gpu else 0, "max_retries": 1, "num_returns": "streaming"}
    learn: Any = ray.remote(**options)(_learn)  # type: ignore[call-overload]
    label_sets = {task: inputs.questions.tasks[task] for task in inputs.scores}
    encoder = inputs.predictor.bundle.config.encoder  # the bundle's, whatever the settings of this job say
    with own_errors():
        for arrived in learn.remote(groups, inputs.dataset, label_sets, encoder, config):
            found: SupervisedScores = ray.get(arrived)
            of, label_set = inputs.scores[found.task], label_sets[found.task]
            row_of = {name: row for row, name in enumerate(found.record_ids)}
            scores = found.scores[[row_of[name] for name in of.record_ids]]
            note = _learnt_from(label_set, found.share, (found.ecgs, found.patients), found.untrained_classes)
            note += f", best epoch {found.best_epoch}"
            scored = inputs.baseline(supervised_method(encoder), of, scores, note, found.share, ecgs=found.ecgs)
            say(f"supervised, {found.task}: macro AUROC {scored.macro.value:.3f} ({note})")
            yield scored


def _learn(*arguments: Any) -> Iterator[SupervisedScores]:
    """`learn_and_score` as Ray wants it: tests wrap that function, and a wrapper is no generator function."""
    yield from learn_and_score(*arguments)


def _learnt_from(
    label_set: LabelSet,
    share: float,
    counts: tuple[int, int],
    untrained: tuple[int, ...],
    *,
    still: tuple[int, ...] = (),
) -> str:
    """Describe the training labels. counts: (ECGs, patients). still: columns that have stayed at zero-shot."""
    classes = tuple(label_set.classes)
    note = f"{100 * share:g}% of labels: {counts[0]} ECGs of {counts[1]} patients"
    if still:
        note += f"; too few labels to train {', '.join(classes[column] for column in still)}, which stay zero-shot"
    if untrained:
        note += f"; too few labels to train {', '.join(classes[column] for column in untrained)}, counted as AUROC 0.5"
    return note
