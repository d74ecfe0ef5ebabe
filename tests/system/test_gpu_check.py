"""`make gpu-check` at tiny sizes on the CPU: the code that runs on a GPU, so that it is not tried there first."""

import json
import subprocess
import sys

from tests.conftest import ROOT

CHECKS = ["bf16", "nccl", "sync_norm", "pinned", "train_1000"]


def test_the_gpu_check_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--tiny", "--only", *CHECKS]
    command += ["--logs", str(tmp_path / "logs")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"] is True
    assert {name: facts["ok"] for name, facts in result["checks"].items()} == dict.fromkeys(CHECKS, True) | {
        "pinned": None
    }
    checks = result["checks"]
    assert all(checks["train_1000"][f"ecg_per_s_{batch}"] > 0 for batch in (16, 32))
    assert all(0 <= checks["train_1000"][f"data_wait_share_{batch}"] <= 1 for batch in (16, 32))
    assert {path.stem for path in (tmp_path / "logs").iterdir()} == set(CHECKS)
