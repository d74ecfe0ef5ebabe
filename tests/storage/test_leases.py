"""Leases on folders, on local disk and on S3: refused, given back, taken over, lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytest.importorskip("boto3")
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.storage import FolderInUseError, leases, s3
from tests.conftest import ROOT
from tests.support.s3 import s3_server

SHORT_S = 0.9


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3.RetryingS3FileSystem.clear_instance_cache()
        yield "s3://ecg"
        s3.RetryingS3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "data")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(leases, "_LOOK_EVERY_S", 0.05)


@pytest.fixture
def other_machine(monkeypatch):
    """What the process table says of a holder on another machine: nothing."""
    monkeypatch.setattr(leases.Holder, "is_running_here", None)


def written(folder):
    """The newest lease's file."""
    return json.loads(storage.read_bytes(storage.list_files(storage.join(folder, "lease"))[-1]))


HOLD = """
import signal, sys, time
from mets_ray import storage
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
with storage.hold(sys.argv[1], "prepare", timeout_s=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder_of(folder):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, str(SHORT_S)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def refused(folder):
    with pytest.raises(FolderInUseError) as error, storage.hold(folder, "prepare"):
        raise AssertionError
    return str(error.value)


def test_a_second_job_is_told_who_holds_the_folder_and_since_when(tmp_path):
    folder = str(tmp_path)
    with holder_of(folder) as holder:
        error, facts = refused(folder), written(folder)
        assert f"`{folder}` is in use by `prepare` on {facts['host']} (process {holder.pid})" in error
        assert f"since {facts['since']}" in error
        assert "hint: wait for that job or stop it" in error
        assert set(facts) == {
            "id", "job", "host", "process", "machine", "started", "since", "timeout_s", "beats", "released",
        }  # fmt: skip
        holder.kill()  # and not waited for: its exit status is still in the process table
        while leases._process_start(holder.pid) is not None:
            time.sleep(0.01)
        with storage.hold(folder, "pretrain"):  # at once, by the process table
            assert written(folder)["job"] == "pretrain"


def test_only_beats_tell_of_a_holder_on_another_machine(folder, other_machine, monkeypatch, capsys):
    with holder_of(folder) as holder:
        monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that is 56 years behind
        assert f"(process {holder.pid}) since {written(folder)['since']}" in refused(folder)
        assert written(folder)["beats"] > 0
        holder.kill()
        began = time.monotonic()
        with storage.hold(folder, "pretrain"):
            assert time.monotonic() - began >= SHORT_S
            assert written(folder)["job"] == "pretrain"
    assert f"looking for a sign of life, for up to {SHORT_S:g} s" in capsys.readouterr().err


def test_a_suspended_holder_finds_its_folder_taken_and_ends(folder, other_machine):
    """As on a machine that sleeps: no beats for longer than the limit, then the work goes on."""
    with holder_of(folder) as holder:
        holder.send_signal(signal.SIGSTOP)
        with storage.hold(folder, "second"):
            holder.send_signal(signal.SIGCONT)  # its next beat finds the other, and interrupts its main thread
            shown = holder.communicate(timeout=60)[1]
            assert holder.returncode == 1
            assert "FolderInUseError" in shown
            assert "was taken over by `second`" in shown
            assert (written(folder)["job"], written(folder)["released"]) == ("second", False)


def test_a_lost_lease_is_found_before_the_last_write(folder, other_machine):
    def first():
        with storage.hold(folder, "first") as lease:
            number = int(storage.list_files(storage.join(folder, "lease"))[-1][-11:-5])
            lease.confirm()
            other = leases.Holder.this_process("second", 60.0)
            assert storage.create_bytes(leases._file_uri(folder, number + 1), leases._packed(other))
            lease.confirm()

    with pytest.raises(FolderInUseError, match="taken over by `second`"):
        first()
    assert written(folder)["released"] is False, "the other job's lease is its own"


def test_a_store_that_lets_two_create_one_file_tells_the_loser(folder):
    """As stores do that do not know `If-None-Match`: the later upload replaces the earlier one."""

    def first():
        with storage.hold(folder, "first") as lease:
            other = leases.Holder.this_process("second", 60.0)
            storage.write_bytes(storage.list_files(storage.join(folder, "lease"))[-1], leases._packed(other))
            lease.confirm()

    with pytest.raises(FolderInUseError, match="taken over by `second`"):
        first()


def test_a_folder_is_given_back_and_one_file_tells_of_it(folder):
    for number in range(3):
        with storage.hold(folder, f"job {number}"):
            assert written(folder)["released"] is False
    assert len(storage.list_files(folder)) == 1
    facts = written(folder)
    assert (facts["job"], facts["released"]) == ("job 2", True)
    with pytest.raises(ZeroDivisionError), storage.hold(folder, "fails"):
        1 / 0  # noqa: B018
    assert written(folder)["released"] is True


def test_of_many_jobs_at_a_time_one_holds_the_folder(folder, monkeypatch):
    turns, inside, most = (20, [], []) if storage.is_local(folder) else (2, [], [])
    monkeypatch.setattr(leases, "_LOOK_EVERY_S", 0.002 if storage.is_local(folder) else 0.05)

    def work(number):
        for _ in range(turns):
            with storage.hold(folder, f"job {number}", wait=True):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.003)
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert most == [1] * 6 * turns


def test_a_damaged_lease_is_a_dead_one(folder, monkeypatch):
    storage.write_bytes(leases._file_uri(folder, 4), b"{")
    monkeypatch.setattr(leases, "TIMEOUT_S", SHORT_S)
    with storage.hold(folder, "prepare"):
        assert written(folder)["job"] == "prepare"


def test_a_beat_that_hangs_holds_up_no_exit(folder, monkeypatch):
    monkeypatch.setattr(leases, "_RELEASE_WITHIN_S", 0.2)
    hanging = threading.Event()
    began = time.monotonic()
    with storage.hold(folder, "prepare", timeout_s=0.6) as lease:
        monkeypatch.setattr(lease, "_beat", lambda: hanging.wait(30.0))
        time.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    hanging.set()


def test_a_stop_gives_the_folder_back(folder):
    with holder_of(folder) as holder:
        holder.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in holder.communicate(timeout=60)[1]
        assert written(folder)["released"] is True


def test_a_store_that_refuses_is_no_free_folder(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DatasetError), storage.hold(str(tmp_path / "data"), "prepare"):
        raise AssertionError


def test_a_job_that_is_stopped_at_any_line_gives_the_folder_back(tmp_path):
    def interrupt_at(line):
        """Raise KeyboardInterrupt, as a signal's handler does, before the given one of the lines run in `leases`."""
        left = line

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename != leases.__file__:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)

    line = 0
    interrupted = True
    while interrupted:
        line += 1
        folder = str(tmp_path / str(line))
        before = sys.gettrace()
        try:
            interrupt_at(line)
            with storage.hold(folder, "prepare"):
                pass
            interrupted = False
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert not storage.list_files(storage.join(folder, "lease")) or written(folder)["released"], line
    assert line > 50
