"""Scoring a bundle on a prepared data set, beside its baselines."""

__all__ = ["analyses", "baselines", "checks", "evaluate", "inputs", "supervised", "write"]
