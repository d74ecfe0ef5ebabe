"""Jobs in processes of their own, as a user starts them."""

import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def run_job(name, *words, environment=None, timeout=240):
    """(exit status, the JSON of stdout's last line, stderr) of `python jobs/<name>.py`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words],
        env=os.environ | {"RAY_ADDRESS": "local"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr
