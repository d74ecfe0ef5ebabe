"""Nodes, who gets which CPUs, and quiet Ray data sets."""

__all__ = ["nodes", "ray_data", "shares"]
