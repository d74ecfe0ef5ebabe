"""Jobs as a user starts them, in processes of their own.

A job's imports cost 3 to 6 s of CPU, its start of a Ray cluster some 10 s more. Where neither is what a test is about,
jobs are forked from a process that has imported once, and meet on the cluster of the test session. The workers of a
cluster that a job starts for itself are forked too, where the session has a server for that.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.warm_workers import ADDRESS, warm_workers

ROOT = Path(__file__).parents[2]
_PRELOADED = [__name__, "tests.support.preloaded"]


class Job:
    """A job that runs in a session of its own: `process.pid` is its group's id."""

    def __init__(self, process, folder):
        self.process, self._folder = process, folder

    def running(self):
        return self.process.is_alive()

    def shown(self):
        """What it has written to stderr so far."""
        file = Path(self._folder, "stderr")
        return file.read_text() if file.exists() else ""

    def result(self, timeout_s=240):
        """(exit status, the JSON of stdout's last line, stderr)."""
        self.process.join(timeout_s)
        stdout, stderr = (Path(self._folder, name).read_text() for name in ("stdout", "stderr"))
        assert not self.running(), f"the job still runs after {timeout_s:g} s: {stderr[-3000:]}"
        lines = stdout.splitlines()
        return self.process.exitcode, json.loads(lines[-1]) if lines else None, stderr


@contextlib.contextmanager
def started_job(name, *words, address="local", environment=None, everywhere=None):
    """`python jobs/<name>.py`, forked; nothing of its group outlives the block. A path names another folder's file.

    address: of the Ray cluster, or `local` for one of its own. environment: variables besides those of this process;
    everywhere: those that tasks and actors have as well, as with `ray job submit --runtime-env-json`.
    """
    extra = (environment or {}) | (everywhere or {})
    if everywhere:
        extra["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"env_vars": everywhere}})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory(prefix="job_") as folder:
        arguments = (str(ROOT / "jobs" / f"{name}.py"), words, folder, os.environ | {"RAY_ADDRESS": address} | extra)
        process = context.Process(target=_run, args=arguments)
        process.start()
        try:
            yield Job(process, folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()


def run_job(name, *words, timeout=240, **options):
    """(exit status, the JSON of stdout's last line, stderr) of `python jobs/<name>.py`, forked; see `started_job`."""
    with started_job(name, *words, **options) as job:
        return job.result(timeout)


def run_script(name, *words):
    """(exit status, stdout, stderr) of `python jobs/<name>.py` as it stands, with its start and its imports."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def _run(script, words, folder, environment):
    gc.freeze()  # the collector need not look at what was imported before the fork
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *words]
    with warm_workers() if ADDRESS in environment else contextlib.nullcontext():
        runpy.run_path(script, run_name="__main__")
