"""Every setting: the tree, and how a file and words become it."""

__all__ = ["load", "settings"]
