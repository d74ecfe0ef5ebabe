"""Scores and labels made up for the tests of metrics."""

import numpy as np


def made_up(records: int, classes: int, seed: int, *, patients: int | None = None, ties: bool = False):
    generator = np.random.default_rng(seed)
    patient = generator.integers(patients or records, size=records)
    labels = generator.random((records, classes)) < generator.uniform(0.1, 0.4, classes)
    scores = generator.normal(size=(records, classes)) + labels * generator.uniform(0.0, 2.0, classes)
    if ties:
        scores = np.round(scores)
    return scores, labels, np.array([f"patient-{number}" for number in patient])
