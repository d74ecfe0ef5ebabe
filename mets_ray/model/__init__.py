"""METS: encoder, loss, augmentation, zero-shot, the bundle and the predictor."""

__all__ = ["augment", "bundle", "ecg_encoder", "loss", "mets", "optimization", "predictor", "windows", "zero_shot"]
