"""Baselines that put a zero-shot score in context: a random encoder, bare class names, chance, and training on labels.

Protocol of the supervised baselines: labels and folds follow Strodthoff et al. 2021 (doi:10.1109/JBHI.2020.3022989),
the label shares of 1, 10 and 100% follow MERL (Liu et al., ICML 2024). The test folds are scored once.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray

from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_errors
from mets_ray.console import say
from mets_ray.errors import ConfigError
from mets_ray.evaluation.checks import learning_folds
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.evaluation.supervised import SupervisedScores, learn_and_score
from mets_ray.metrics.auroc import chance_auroc
from mets_ray.metrics.linear_probe import fit_linear_probe, label_subset
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.results.values import BaselineScore
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_files import read_prompt_set


def score_baselines(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """Score all of `evaluate.baselines`, in that order.

    Raises ConfigError if a baseline needs train or validation folds and there are none, DatasetError if patients in
    those folds are also in the test folds.
    """
    kinds = {
        "random_encoder": _random_encoder,
        "class_names": _class_names,
        "permuted_labels": _permuted_labels,
        "linear_probe": _linear_probe,
        "supervised": _supervised,
    }
    for name in inputs.config.evaluate.baselines:
        say(f"baseline: {name}")
        yield from kinds[name](inputs)


def _random_encoder(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    seed, records = inputs.config.seed, inputs.embedded.untrained["folds.test"]
    found = similarities_by_task(inputs.predictor.untrained(seed), inputs.questions, records)
    for task, of in inputs.scores.items():
        macro = inputs.macro(found[task].similarity, of)
        yield BaselineScore("randomly initialised", task, macro, f"no training, seed {seed}")


def _class_names(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    questions = replace(inputs.questions, prompts=read_prompt_set("class_names"))
    learn_prompts(inputs.config, inputs.predictor, questions.texts(), inputs.dataset)
    found = similarities_by_task(inputs.predictor, questions, inputs.records)
    for task, of in inputs.scores.items():
        macro = inputs.macro(found[task].similarity, of)
        yield BaselineScore("class names as prompts", task, macro, "reports, no labels")


def _permuted_labels(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    settings = inputs.config.evaluate
    for task, of in inputs.scores.items():
        chance = chance_auroc(of.similarity, of.truth, samples=settings.bootstrap_samples, seed=inputs.config.seed)
        note = f"the bundle's scores against labels permuted {settings.bootstrap_samples} times"
        yield BaselineScore("chance", task, chance, note)


def _linear_probe(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    """Linear probes on the bundle's features and on those of an untrained encoder.

    The second row shows what pretraining adds: on many ECG benchmarks, a probe on random features comes close to one
    on pretrained features (Berger et al. 2026, arXiv:2602.17531).
    """
    config, embedded = inputs.config, inputs.embedded
    for baseline, parts in (
        ("linear probe", embedded.bundle),
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
                macro = inputs.macro(probe.scores(test.features[tested]), of)
                patients = len(set(train.patients[rows].tolist()))
                note = _learnt_from(label_set, share, (len(rows), patients), probe.untrained_classes)
                yield BaselineScore(baseline, task, macro, f"{note}, C = {probe.inverse_penalty:g}", share)


def _supervised(inputs: EvaluationInputs) -> Iterator[BaselineScore]:
    config = inputs.config
    if len(inputs.records.record_ids) != inputs.records.rows:
        raise ConfigError(
            "the baseline `supervised` uses one window per record, and this data set has several",
            hint="remove it from evaluate.baselines, or prepare with prepare.source.stretch=start",
        )
    folds = learning_folds(config, inputs.dataset, inputs.test, "supervised") | {"test": inputs.test}
    groups = {name: (inputs.dataset.row_groups(selection), selection) for name, selection in folds.items()}
    gpu = config.evaluate.num_gpus_per_actor > 0
    # Nothing else runs at this point, so the task gets all CPUs of one node.
    cpus = 1 if gpu else max(node.get("CPU", 0.0) for node in reachable_nodes())
    options = {"num_cpus": cpus, "num_gpus": 1 if gpu else 0, "max_retries": 1, "num_returns": "streaming"}
    learn: Any = ray.remote(**options)(learn_and_score)  # type: ignore[call-overload]
    label_sets = {task: inputs.questions.tasks[task] for task in inputs.scores}
    with own_errors():
        for arrived in learn.remote(groups, inputs.dataset, label_sets, config):
            found: SupervisedScores = ray.get(arrived)
            of, label_set = inputs.scores[found.task], label_sets[found.task]
            row_of = {name: row for row, name in enumerate(found.record_ids)}
            macro = inputs.macro(found.scores[[row_of[name] for name in of.record_ids]], of)
            note = _learnt_from(label_set, found.share, (found.ecgs, found.patients), found.untrained_classes)
            note += f", best epoch {found.best_epoch}"
            say(f"supervised, {found.task}, {found.share:.0%} of labels: macro AUROC {macro.value:.3f} ({note})")
            yield BaselineScore("supervised ResNet1d-18", found.task, macro, note, found.share)


def _learnt_from(label_set: LabelSet, share: float, counts: tuple[int, int], untrained: tuple[int, ...]) -> str:
    """Describe the training labels. counts: (ECGs, patients)."""
    note = f"{share:.0%} of labels: {counts[0]} ECGs of {counts[1]} patients"
    if untrained:
        classes = tuple(label_set.classes)
        note += f"; too few labels to train {', '.join(classes[column] for column in untrained)}, counted as AUROC 0.5"
    return note
