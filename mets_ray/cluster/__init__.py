"""Cluster nodes, how their CPUs and GPUs are divided, and quiet Ray data sets."""

__all__ = ["nodes", "ray_data", "shares"]
