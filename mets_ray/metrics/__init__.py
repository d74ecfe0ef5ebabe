"""Metrics on arrays: AUROC, intervals, balanced tables, retrieval, calibration."""

__all__ = [
    "auroc",
    "balanced",
    "calibration",
    "extremes",
    "intervals",
    "linear_probe",
    "retrieval",
    "sensitivity",
    "similarities",
    "single_label",
    "task_scores",
]
