"""PNG bytes: ECG paper, curves, training."""

__all__ = ["ecg", "evaluation", "figure", "training"]
