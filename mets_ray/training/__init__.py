"""Contrastive pretraining on Ray Train."""

__all__ = [
    "batch_log",
    "collectives",
    "epoch",
    "failures",
    "fit",
    "grad_cache",
    "progress",
    "run_folder",
    "state",
    "tracking",
    "validation",
    "watch",
    "worker",
]
