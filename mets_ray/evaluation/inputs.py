"""Shared input of all parts of an evaluation: the test records and the bundle's scores for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.predictor import Predictor
from mets_ray.model.zero_shot import labelled_similarities
from mets_ray.pipelines.embed import EmbeddedParts, EmbeddedRecords
from mets_ray.results.values import BaselineScore
from mets_ray.tasks.questions import Questions


@dataclass(frozen=True)
class EvaluationInputs:
    """The shared input. `predictor` knows all prompts of `questions`.

    `scores`: by task; a task is omitted if no record has any of its classes.
    `bundle_uri`: the bundle that the actors load, the same as the predictor's. `embedded`: the records in the folds
    `test`, and in the other folds that this evaluation uses, by setting. `not_calibrated`: why there is no calibration;
    "" if there is one.
    """

    config: Config
    dataset: PreparedDataset
    test: Selection
    bundle_uri: str
    predictor: Predictor
    questions: Questions
    embedded: EmbeddedParts
    scores: Mapping[str, TaskSimilarities]
    not_calibrated: str = ""

    @property
    def records(self) -> EmbeddedRecords:
        """The test records."""
        return self.embedded.bundle["folds.test"]

    def macro(self, similarity: np.ndarray, of: TaskSimilarities) -> Interval:
        """Macro AUROC of other similarities, [record, class], for the same records as `of`."""
        settings = self.config.evaluate
        return bootstrap_macro_auroc(
            similarity, of.truth, of.patients, samples=settings.bootstrap_samples, seed=self.config.seed
        ).macro

    def baseline(
        self,
        name: str,
        of: TaskSimilarities,
        scores: np.ndarray,
        note: str,
        label_share: float | None = None,
        *,
        ecgs: int = 0,
    ) -> BaselineScore:
        """A baseline's `scores`, [record, class], for the same records as `of`. ecgs: how many it was trained on."""
        own = replace(of, similarity=scores.astype(np.float64))
        return BaselineScore(name, of.task, self.macro(scores, of), note, label_share, own, ecgs)


def similarities_by_task(
    predictor: Predictor, questions: Questions, records: EmbeddedRecords
) -> dict[str, TaskSimilarities]:
    """Similarity and truth by task, for records with at least one class; tasks without such a record are omitted.

    The predictor must know all prompts of `questions` (`pipelines.texts.learn_prompts`).
    """
    found = {}
    for task, label_set in questions.tasks.items():
        vectors = predictor.class_vectors(questions.classes(task))
        assert vectors is not None, f"the prompts of `{task}` were not learnt"
        similarity, truth, kept = labelled_similarities(vectors, label_set, records.embeddings, records.labels)
        if len(truth):
            names = tuple(name for name, keep in zip(records.record_ids, kept, strict=True) if keep)
            found[task] = TaskSimilarities(
                task, tuple(label_set.classes), names, records.patients[kept], similarity, truth
            )
    return found
