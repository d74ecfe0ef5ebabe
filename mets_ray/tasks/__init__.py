"""What is asked: classes, their codes, their words."""

__all__ = ["label_sets", "prompt_files", "prompt_sets", "questions"]
