"""Jobs on a cluster that is there, before their work begins."""

import json
import os
import subprocess
import sys
import textwrap

from tests.conftest import ROOT
from tests.support.jobs import run_job


def test_a_store_that_does_not_answer_fails_soon_and_clearly(ray_address, tmp_path):
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing listens on the discard port
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    words = [f"run_uri={tmp_path}", "dataset_uri=s3://ecg/data", "evaluate.bundle_uri=s3://ecg/bundle"]
    status, result, _ = run_job("evaluate", *words, address=ray_address, environment=environment, timeout=120)
    assert status == 1
    assert "s3://ecg/data" in result["error"]
    assert "hint:" in result["error"]


def test_work_begins_when_the_libraries_are_loaded(ray_address, tmp_path):
    """Two threads inside one package's import get modules that are half loaded."""
    (tmp_path / "slow_library.py").write_text(
        textwrap.dedent("""
            import sys, time

            began = time.monotonic()
            while not hasattr(sys.modules.get("ray"), "is_initialized") or not sys.modules["ray"].is_initialized():
                assert time.monotonic() < began + 60
                time.sleep(0.05)
            time.sleep(1)  # all that work could wait for is there but this
            loaded = True
            """)
    )
    write_job(
        """
        import sys

        def work(config, line):
            return {"loaded": hasattr(sys.modules.get("slow_library"), "loaded")}
        """,
        tmp_path,
    )
    environment = os.environ | {"RAY_ADDRESS": ray_address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "job.py", f"run_uri={tmp_path}"]  # a process that has imported nothing yet
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"job": "job", "loaded": True}


def test_what_is_stopped_lets_go_of_its_data_before_ray_ends(ray_address, tmp_path):
    """A stream that is closed after `ray.shutdown` starts Ray anew and fills the end with traces."""
    write_job(
        """
        import time

        def slow(row):
            time.sleep(0.1)
            return row

        def work(config, line):
            import ray

            rows = iter(ray.data.range(64, override_num_blocks=64).map(slow).iter_rows())
            next(rows)
            raise KeyboardInterrupt
        """,
        tmp_path,
    )
    status, result, shown = run_job(str(tmp_path / "job"), f"run_uri={tmp_path}", address=ray_address)
    assert status == 130
    assert result == {"job": "job", "error": "stopped", "signal": "SIGINT"}
    assert "Traceback" not in shown
    assert shown.endswith("job: stopped\n")


def write_job(code, folder):
    """job.py in `folder`: a job of its own whose work is `code`."""
    run = """
        import sys

        from mets_ray.job import Command, run_command

        run_command(Command("job", "A job.", work, lambda config: None, (), (), ("slow_library",)), sys.argv[1:])
        """
    (folder / "job.py").write_text(textwrap.dedent(code) + textwrap.dedent(run))
