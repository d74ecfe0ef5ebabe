"""METS's balanced tables of an evaluation, by cosines and by standardised ones, which can be compared."""

from collections.abc import Mapping

from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.balanced import BalancedScore, score_balanced, sets_of_task
from mets_ray.metrics.levels import Levels, levels_of_others, levels_of_others_and_own
from mets_ray.metrics.similarities import TaskSimilarities

OF_OTHERS = "the other patients here"
OF_OTHERS_AND_OWN = "the other patients here and its own recording, half each"
OF_REFERENCE = "the bundle's reference"


def score_balanced_sets(inputs: EvaluationInputs) -> tuple[BalancedScore, ...]:
    """Each balanced set of each task."""
    settings = inputs.config.evaluate
    return tuple(
        score_balanced(
            of_task,
            of,
            per_class=settings.balanced_per_class,
            samples=settings.bootstrap_samples,
            seed=inputs.config.seed,
            levels=_levels(inputs, of),
        )
        for task, of in inputs.scores.items()
        for of_task in sets_of_task(task)
    )


def _levels(inputs: EvaluationInputs, of: TaskSimilarities) -> Mapping[str, Levels]:
    """By whose ECGs they are. The records here are those with a class of the task: their labels do nothing else."""
    found = {}
    if (others := levels_of_others(of.similarity, of.patients)) is not None:
        found[OF_OTHERS] = others
    if inputs.dataset.card.focus is not None:  # an ECG is a beat, and its recording has others
        if (both := levels_of_others_and_own(of.similarity, of.patients)) is not None:
            found[OF_OTHERS_AND_OWN] = both
    else:  # the reference's ECGs were pooled as a whole: one that is pooled around a beat lies elsewhere
        vectors = inputs.predictor.class_vectors(inputs.questions.classes(of.task))
        assert vectors is not None, f"the prompts of `{of.task}` were not learnt"
        if (levels := inputs.predictor.levels(vectors)) is not None:
            found[OF_REFERENCE] = levels
    return found
