"""One task on the frozen features of a bundle: what it is to learn a head from some of the train labels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.linear_probe import LinearProbe, fit_linear_probe
from mets_ray.metrics.text_head import Learnable, TextHead, fit_text_head
from mets_ray.pipelines.embed import EmbeddedRecords
from mets_ray.tasks.label_sets import label_matrix


@dataclass(frozen=True)
class FrozenTask:
    """Train records with their labels, those without any class among them, and validation and test records of the task.

    classes: of the task, in the order of the columns.
    """

    classes: tuple[str, ...]
    train: Learnable
    record_ids: tuple[str, ...]
    patients: np.ndarray
    validation: Learnable
    test: Learnable

    @classmethod
    def of(cls, inputs: EvaluationInputs, task: str) -> "FrozenTask":
        """From the embedded parts, all of which the evaluation must have."""
        parts = inputs.embedded.bundle
        train = parts["folds.train"]
        return cls(
            tuple(inputs.questions.tasks[task].classes),
            _learnable(inputs, task, train, labelled=False),
            train.record_ids,
            train.patients,
            _learnable(inputs, task, parts["folds.validation"]),
            _learnable(inputs, task, parts["folds.test"]),
        )

    @property
    def truth(self) -> Bool[np.ndarray, "record class"]:
        """Classes of the train records."""
        return self.train.truth

    def linear_probe(self, rows: np.ndarray) -> tuple[LinearProbe, Float64[np.ndarray, "record class"]]:
        """A linear probe of some train records, and its scores of the test records."""
        train, validation = self._drawn(rows), self.validation
        probe = fit_linear_probe(train.features, train.truth, validation.features, validation.truth)
        return probe, probe.scores(self.test.features)

    def text_head(self, rows: np.ndarray) -> tuple[TextHead, Float64[np.ndarray, "record class"]]:
        """A head that begins at zero-shot, of some train records, and its scores of the test records."""
        head = fit_text_head(self._drawn(rows), self.validation)
        return head, head.scores(self.test.features, self.test.zero_shot)

    def _drawn(self, rows: np.ndarray) -> Learnable:
        return Learnable(self.train.features[rows], self.train.zero_shot[rows], self.train.truth[rows])


def _learnable(inputs: EvaluationInputs, task: str, records: EmbeddedRecords, *, labelled: bool = True) -> Learnable:
    """labelled: only records with a class of the task."""
    truth, kept = label_matrix(inputs.questions.tasks[task], records.labels)
    rows: Bool[np.ndarray, " record"] = kept if labelled else np.ones_like(kept)
    vectors = inputs.predictor.class_vectors(inputs.questions.classes(task))
    assert vectors is not None, f"the prompts of `{task}` were not learnt"
    similarity: Float[np.ndarray, "record class"] = records.embeddings[rows] @ vectors.numpy().T
    return Learnable(records.features[rows], inputs.predictor.logits(similarity), truth[rows])
