"""Scoring a bundle on a prepared data set, alongside baselines."""

__all__ = ["analyses", "baselines", "checks", "evaluate", "inputs", "supervised", "write"]
