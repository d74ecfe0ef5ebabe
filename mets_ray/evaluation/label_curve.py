"""What labels add to zero-shot: a head and a probe with 8, 32, 128 and all labels per class, and training on all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from mets_ray.config.kinds import EncoderArchitecture
from mets_ray.config.settings import EncoderConfig
from mets_ray.console import say
from mets_ray.evaluation.frozen_task import FrozenTask
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.few_labels import draw_labels
from mets_ray.metrics.label_curve import DRAWS, LABELS_PER_CLASS, ZERO_SHOT, CurvePoint, mean_macro_auroc
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.results.values import BaselineScore

TEXT_HEAD, LINEAR_PROBE = "text-initialised head", "linear probe"
_ENCODERS: Mapping[EncoderArchitecture, str] = {"resnet1d_18": "ResNet1d-18", "seresnet1d_18": "SE-ResNet1d-18"}

Scores = Callable[[FrozenTask, np.ndarray], np.ndarray]
_FITTED: dict[str, Scores] = {
    TEXT_HEAD: lambda task, rows: task.text_head(rows)[1],
    LINEAR_PROBE: lambda task, rows: task.linear_probe(rows)[1],
}


def supervised_method(encoder: EncoderConfig) -> str:
    """What an encoder trained on labels alone is called, in tables and as a folder of its scores."""
    return f"supervised {_ENCODERS[encoder.architecture]}"


def label_curve(inputs: EvaluationInputs, baselines: Sequence[BaselineScore]) -> tuple[CurvePoint, ...]:
    """The points of every task, with the methods that `evaluate.baselines` names; none where it names none of them.

    baselines: what was scored already. Of these are the points of all labels, where `evaluate.label_shares` has 1.0;
    `supervised` has no other, because each would be a whole training.
    """
    supervised = supervised_method(inputs.predictor.bundle.config.encoder)
    known = {"text_head": TEXT_HEAD, "linear_probe": LINEAR_PROBE, "supervised": supervised}
    methods = [name for key, name in known.items() if key in inputs.config.evaluate.baselines]
    if not methods:
        return ()
    fitted = [name for name in methods if name in _FITTED]
    fits = len(fitted) * len(LABELS_PER_CLASS) * DRAWS * len(inputs.scores)
    say(f"curve by labels per class: at most {fits} heads on frozen features")
    # Threads that share matrices this small wait for each other longer than they compute.
    with threadpool_limits(1):
        return tuple(point for of in inputs.scores.values() for point in _of_task(inputs, of, methods, baselines))


def _of_task(
    inputs: EvaluationInputs, of: TaskSimilarities, methods: Iterable[str], baselines: Sequence[BaselineScore]
) -> Iterator[CurvePoint]:
    yield CurvePoint(of.task, ZERO_SHOT, 0, inputs.macro(of.similarity, of), 1, 0.0)
    for method in methods:
        if method in _FITTED:
            if method == TEXT_HEAD:  # without labels it is zero-shot
                yield CurvePoint(of.task, method, 0, inputs.macro(of.similarity, of), 1, 0.0)
            yield from _of_few(inputs, of, method)
        known = [row for row in baselines if (row.baseline, row.task, row.label_share) == (method, of.task, 1.0)]
        yield from (CurvePoint(of.task, method, None, row.macro, 1, float(row.ecgs)) for row in known)


def _of_few(inputs: EvaluationInputs, of: TaskSimilarities, method: str) -> Iterator[CurvePoint]:
    task, settings = FrozenTask.of(inputs, of.task), inputs.config
    labels = task.truth.sum(axis=0)
    for number in LABELS_PER_CLASS:
        if (labels <= number).all():  # the same as all of them
            return
        draws = [draw_labels(task.truth, task.record_ids, number, settings.seed + draw) for draw in range(DRAWS)]
        macro = mean_macro_auroc(
            of,
            [_FITTED[method](task, rows) for rows in draws],
            samples=settings.evaluate.bootstrap_samples,
            seed=settings.seed,
        )
        short = tuple(name for name, count in zip(task.classes, labels, strict=True) if count < number)
        yield CurvePoint(of.task, method, number, macro, DRAWS, float(np.mean([len(rows) for rows in draws])), short)
