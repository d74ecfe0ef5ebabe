"""A prepared data set: card, shards, folds, and the training order."""

__all__ = ["card", "folds", "plan", "prepared", "shard_reader", "shard_writer"]
