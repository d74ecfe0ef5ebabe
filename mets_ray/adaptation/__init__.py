"""Learning from labels on a bundle: a head on frozen features, or a fine-tuned copy of the encoder."""

__all__ = ["adapt", "examples", "finetune", "head", "labels", "learn"]
