"""Contrastive pretraining on Ray Train."""

__all__ = [
    "batch_log",
    "checks",
    "collectives",
    "epoch",
    "failures",
    "fit",
    "global_loss",
    "grad_cache",
    "job",
    "label_texts",
    "launch",
    "messages",
    "progress",
    "run_folder",
    "state",
    "texts",
    "tracking",
    "validation",
    "watch",
    "worker",
]
