"""What is asked: classes, their codes, their words."""

__all__ = ["class_warnings", "label_sets", "prompt_files", "prompt_sets", "questions"]
