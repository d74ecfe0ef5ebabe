"""Being told to go: what a process sees of the signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

# Counts the interrupts of each stage, and says when it is ready for the next signal.
PREAMBLE = """
import sys, threading, time
from mets_ray import stops
stops.listen()
def ready():
    print("ready", flush=True)
def wait(seconds=20.0):
    ready()
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return 1
    return 0
"""


def counts_of(code, *signals, pause_s=0.05):
    """What `code` prints last, after one signal at each "ready"; the pause lets its sleep begin, which a signal just
    before it would not end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        for number in signals:
            assert process.stdout.readline() == "ready\n"
            time.sleep(pause_s)
            process.send_signal(number)
        return process.stdout.read().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_interrupts_and_is_remembered(number):
    assert counts_of("print(wait(), stops.told().name)", number) == ["1", number.name]


def test_a_signal_that_is_sent_twice_counts_once():
    """As `timeout` does, to its child and to its group."""
    code = "first = wait(); stops.hear(); print(first, wait(0.5), stops.told().name)"
    assert counts_of(code, signal.SIGTERM, signal.SIGTERM) == ["1", "0", "SIGTERM"]


def test_ctrl_c_again_interrupts_the_end_as_well_and_sigterm_does_not():
    code = "stops._ONE_PRESS_S = 0.2; first = wait(); stops.hear(); print(first, wait(0.5), wait(), stops.told().name)"
    assert counts_of(code, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, pause_s=0.3) == ["1", "0", "1", "SIGTERM"]


def test_an_interrupt_that_python_drops_comes_again():
    """An exception in a finalizer is printed and forgotten."""
    code = """
stops._REPEAT_EVERY_S = 0.2
stops._ONE_PRESS_S = 0.1
sys.unraisablehook = lambda dropped: None
class Finalized:
    def __del__(self):
        wait()
one = Finalized()
del one
try:
    time.sleep(20)
    print("forgotten")
except KeyboardInterrupt:
    print("again")
"""
    assert counts_of(code, signal.SIGTERM) == ["again"]


def test_a_clean_up_is_not_broken_off():
    code = """
stops._REPEAT_EVERY_S = 0.1
stops._ONE_PRESS_S = 0.1
try:
    try:
        ready()
        time.sleep(20)
    finally:
        time.sleep(0.6)
        print("clean")
except KeyboardInterrupt:
    print("done")
"""
    assert counts_of(code, signal.SIGTERM) == ["clean", "done"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_job_that_is_stopped_while_ray_is_loaded_says_so(tmp_path, number, status):
    with subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "prepare.py"), f"run_uri={tmp_path}"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as job:  # fmt: skip
        assert "settings that differ" in job.stderr.readline()
        job.send_signal(number)
        stdout, stderr = job.communicate()
    assert json.loads(stdout) == {"job": "prepare", "error": "stopped", "signal": number.name}
    assert job.returncode == status
    assert "Traceback" not in stderr
    assert stderr.endswith("prepare: stopped\n")
