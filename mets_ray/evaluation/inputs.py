"""What every part of an evaluation starts from: the test records, and what the bundle made of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.predictor import Predictor
from mets_ray.model.zero_shot import labelled_similarities
from mets_ray.pipelines.embed import EmbeddedRecords
from mets_ray.tasks.questions import Questions


@dataclass(frozen=True)
class EvaluationInputs:
    """`predictor` knows all prompts of `questions`; `scores` are by task, without tasks of which no record has a class.

    `bundle_uri`: what the actors load, the same bundle as the predictor's. `records`: of the folds `test`.
    """

    config: Config
    dataset: PreparedDataset
    test: Selection
    bundle_uri: str
    predictor: Predictor
    questions: Questions
    records: EmbeddedRecords
    scores: Mapping[str, TaskSimilarities]

    def macro(self, similarity: np.ndarray, of: TaskSimilarities) -> Interval:
        """Macro AUROC of other similarities, [record, class], of the same records as `of`."""
        settings = self.config.evaluate
        return bootstrap_macro_auroc(
            similarity, of.truth, of.patients, samples=settings.bootstrap_samples, seed=self.config.seed
        ).macro


def similarities_by_task(
    predictor: Predictor, questions: Questions, records: EmbeddedRecords
) -> dict[str, TaskSimilarities]:
    """Similarity and truth of the records that have a class, by task; tasks of which no record has one are absent.

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
