"""The class vectors of a bundle's prompt sets, so that its ONNX model answers without a language model."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mets_ray.model.predictor import Predictor
from mets_ray.tasks.prompt_sets import PromptSet


def class_file(prompt_set: PromptSet) -> str:
    """Where the vectors of a prompt set's classes are in the folder."""
    return f"classes/{prompt_set.name}.json"


def class_files(predictor: Predictor) -> Iterator[tuple[PromptSet, dict[str, Any]]]:
    """The content of the file of each prompt set of the bundle: one unit vector per class, by task, and where the
    bundle has a reference of inputs also `levels`: mean and standard deviation of its ECGs' similarity to each class.

    Tasks whose texts the bundle has no features for are left out, and so is a prompt set without any other.
    """
    for prompt_set in predictor.facts.prompt_sets.values():
        tasks, levels = {}, {}
        for task, classes in prompt_set.tasks.items():
            vectors = predictor.class_vectors(classes)
            if vectors is None:
                continue
            tasks[task] = {name: _numbers(vector) for name, vector in zip(classes, vectors.numpy(), strict=True)}
            if (of := predictor.levels(vectors)) is not None:
                pairs = zip(of.mean.tolist(), of.deviation.tolist(), strict=True)
                levels[task] = dict(zip(classes, pairs, strict=True))
        if tasks:
            yield (
                prompt_set,
                {
                    "prompt_set": prompt_set.name,
                    "version": prompt_set.version,
                    "sha256": prompt_set.sha256,
                    "bundle": predictor.model_version,
                    "tasks": tasks,
                }
                | ({"levels": levels} if levels else {}),
            )


def _numbers(vector: np.ndarray) -> list[float]:
    return [float(str(value)) for value in vector]  # the shortest decimal that is this float32
