"""One syntax tree at a time.

CPython 3.11 counts the depth of the tree that it builds for the whole process and not for each thread. A finalizer that
runs meanwhile lets another thread in, and if that builds a tree too, as jaxtyping's import hook and Hypothesis do in
tests, the first one gets `SystemError: AST constructor recursion depth mismatch`, once in some ten thousand tests.
"""

import ast
import builtins
import threading
from typing import Any

_compile = builtins.compile
_BUILDING = threading.RLock()  # building may collect garbage, whose finalizers may build


def _compiled(source: Any, filename: Any, mode: str, flags: int = 0, *rest: Any, **named: Any) -> Any:
    if not flags & ast.PyCF_ONLY_AST:
        return _compile(source, filename, mode, flags, *rest, **named)
    with _BUILDING:
        return _compile(source, filename, mode, flags, *rest, **named)


def build_one_at_a_time() -> None:
    """For the whole process, from now on."""
    builtins.compile = _compiled
