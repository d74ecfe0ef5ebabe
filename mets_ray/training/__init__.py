"""Contrastive pretraining on Ray Train."""

__all__ = [
    "batch_log",
    "collectives",
    "epoch",
    "failures",
    "fit",
    "grad_cache",
    "optimization",
    "progress",
    "run_folder",
    "state",
    "tracking",
    "validation",
    "watch",
    "worker",
]
