"""What everything that is told about an evaluation stands on: the test records and what the bundle made of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mets_ray.config.settings import Config
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.bundle import Bundle
from mets_ray.pipelines.embed import EmbeddedRecords
from mets_ray.tasks.label_sets import LabelSet
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.text.embeddings import EmbeddingTable


@dataclass(frozen=True)
class Scene:
    """`scores` are by task, without tasks of which no record has a class; `prompts` holds the words of `prompt_set`."""

    config: Config
    dataset: PreparedDataset
    test: Selection
    bundle_uri: str
    bundle: Bundle
    prompt_set: PromptSet
    prompts: EmbeddingTable
    tasks: Mapping[str, LabelSet]
    records: EmbeddedRecords
    scores: Mapping[str, TaskSimilarities]

    def macro(self, similarity: np.ndarray, of: TaskSimilarities) -> Interval:
        settings = self.config.evaluate
        return bootstrap_macro_auroc(
            similarity, of.truth, of.patients, samples=settings.bootstrap_samples, seed=self.config.seed
        ).macro
