"""torch.compile of the encoder: the same loss, gradients and buffers, where a C++ compiler is installed."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.timeout(900)  # the C++ compiler takes one to three minutes
@pytest.mark.parametrize(("norm", "rows_per_part"), [("batch", None), ("group", 8)])
def test_the_compiled_encoder_computes_the_same(norm: str, rows_per_part: int | None):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and neither g++ nor clang++ is here")
    # In a process of its own: torch.compile cannot trace the checks that jaxtyping puts into tested modules.
    code = f"from tests.training.test_grad_cache import compare_compiled as run; run({norm!r}, {rows_per_part})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
