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
class Part:
    """Records by what a linear probe takes of them, and by what a head that begins at zero-shot takes."""

    features: Float[np.ndarray, "record feature"]
    embedded: Learnable

    def rows(self, rows: np.ndarray) -> "Part":
        """Some of the records."""
        of = self.embedded
        return Part(self.features[rows], Learnable(of.features[rows], of.zero_shot[rows], of.truth[rows]))


@dataclass(frozen=True)
class FrozenTask:
    """Train records with their labels, those without any class among them, and validation and test records of the task.

    classes: of the task, in the order of the columns.
    """

    classes: tuple[str, ...]
    train: Part
    record_ids: tuple[str, ...]
    patients: np.ndarray
    validation: Part
    test: Part

    @classmethod
    def of(cls, inputs: EvaluationInputs, task: str) -> "FrozenTask":
        """From the embedded parts, all of which the evaluation must have."""
        parts = inputs.embedded.bundle
        train = parts["folds.train"]
        return cls(
            tuple(inputs.questions.tasks[task].classes),
            _part(inputs, task, train, labelled=False),
            train.record_ids,
            train.patients,
            _part(inputs, task, parts["folds.validation"]),
            _part(inputs, task, parts["folds.test"]),
        )

    @property
    def truth(self) -> Bool[np.ndarray, "record class"]:
        """Classes of the train records."""
        return self.train.embedded.truth

    def linear_probe(self, rows: np.ndarray) -> tuple[LinearProbe, Float64[np.ndarray, "record class"]]:
        """A linear probe of some train records, and its scores of the test records."""
        train, validation = self.train.rows(rows), self.validation
        truths = train.embedded.truth, validation.embedded.truth
        probe = fit_linear_probe(train.features, truths[0], validation.features, truths[1])
        return probe, probe.scores(self.test.features)

    def text_head(self, rows: np.ndarray) -> tuple[TextHead, Float64[np.ndarray, "record class"]]:
        """A head that begins at zero-shot, of some train records, and its scores of the test records."""
        head = fit_text_head(self.train.rows(rows).embedded, self.validation.embedded)
        return head, head.scores(self.test.embedded.features, self.test.embedded.zero_shot)


def _part(inputs: EvaluationInputs, task: str, records: EmbeddedRecords, *, labelled: bool = True) -> Part:
    """labelled: only records with a class of the task."""
    truth, kept = label_matrix(inputs.questions.tasks[task], records.labels)
    rows: Bool[np.ndarray, " record"] = kept if labelled else np.ones_like(kept)
    vectors = inputs.predictor.class_vectors(inputs.questions.classes(task))
    assert vectors is not None, f"the prompts of `{task}` were not learnt"
    embeddings: Float[np.ndarray, "record dimension"] = records.embeddings[rows]
    logits = inputs.predictor.logits(embeddings @ vectors.numpy().T)
    return Part(records.features[rows], Learnable(embeddings, logits, truth[rows]))
