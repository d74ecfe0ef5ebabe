"""What runs the benchmarks and judges what they found; the benchmarks themselves are no tests."""

import importlib
import json
import sys
import threading
import time

import psutil
import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture
def module(monkeypatch):
    """Imports a file of benchmarks/, as its neighbours do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


GOOD = """
import sys; sys.path.insert(0, {benchmarks!r})
from bench_table import Row, report
report([Row("good.ratio", (1.0, 3.0, 2.0), goal=1.5), Row("good.slow", (9.0,), "s", goal=5.0, at_most=True)])
"""
SCRIPTS = {
    "good": GOOD.format(benchmarks=str(ROOT / "benchmarks")),
    "fails": "import sys; print('it is broken', file=sys.stderr); sys.exit(3)",
    "silent": "print('done')",
}
HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
time.sleep(600)
"""


def test_every_script_has_its_row_and_what_gave_none_says_why(module, tmp_path, monkeypatch, capsys):
    runner = module("all")
    for name, code in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(runner, "SCRIPTS", (*SCRIPTS, "missing"))
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", *SCRIPTS, "missing"])
    with pytest.raises(SystemExit) as ended:
        runner.main()
    assert ended.value.code == 1
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    rows = {row["name"]: row for row in result["rows"]}
    assert (rows["good.ratio"]["value"], rows["good.ratio"]["met"]) == (2.0, True)
    assert rows["good.slow"]["met"] is False
    reasons = {name: row["reason"] for name, row in rows.items() if row["value"] is None}
    assert reasons == {
        "fails": "exit status 3: it is broken",
        "silent": "its last line of stdout is no JSON object with `rows`",
        "missing": "there is no such script",
    }
    assert set(result["minutes"]) == {*SCRIPTS, "missing"}
    assert json.loads((tmp_path / "results/bench.json").read_text()) == result
    table = (tmp_path / "results/table.txt").read_text()
    assert "goal ≥ 1.5: met" in table
    assert "goal ≤ 5: MISSED" in table
    assert table.strip() in shown.err


def test_a_script_that_hangs_ends_with_what_it_has_started(module, tmp_path, monkeypatch):
    runner = module("all")
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(runner, "ENDS_WITHIN_S", 1.0)
    (tmp_path / "hangs.py").write_text(HANGS)
    (row,) = runner._run("hangs", [], limit_s=1.0)
    assert (row["value"], row["reason"]) == (None, "stopped after 1 s: its time was over")
    if (tmp_path / "child").exists():  # not on a machine that took a second to begin
        child = int((tmp_path / "child").read_text())
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def test_make_bench_runs_every_benchmark_that_has_rows(module):
    with_rows = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef rows(" in path.read_text()}
    assert with_rows
    assert with_rows <= set(module("all").SCRIPTS)


def test_a_count_fails_only_above_its_margin(module, capsys):
    judged = module("check").judged
    baseline = {"same": 100, "a bit more": 100, "less": 100, "gone": 100, "more": 100}
    faults = judged({"same": 100, "a bit more": 114, "less": 20, "more": 116, "new": 1}, baseline)
    assert faults == [
        "`gone` is in the baseline and was not counted",
        "`more` is 116, 16% above its baseline of 100",
        "`new` is 1 and has no baseline",
    ]
    assert "less: update" in capsys.readouterr().err


def test_calls_are_counted_in_this_thread_and_in_those_that_it_starts(module):
    calls_of = module("counting").calls_of

    def work(times):
        for _ in range(times):
            abs(-1)

    def in_a_thread(times):
        thread = threading.Thread(target=work, args=(times,))
        thread.start()
        thread.join()

    assert calls_of(lambda: work(1000)) - calls_of(lambda: work(0)) == 1000
    assert calls_of(lambda: in_a_thread(1000)) - calls_of(lambda: in_a_thread(0)) == pytest.approx(1000, abs=20)


def test_requests_to_a_store_are_counted(module):
    from mets_ray import storage

    storage.write_bytes("memory://counted/file", b"12345")
    with module("counting").StoreCounts().watching() as store:
        assert storage.read_bytes("memory://counted/file") == b"12345"
    seen = (store.requests, store.bytes_read)
    storage.read_bytes("memory://counted/file")
    assert seen == (store.requests, store.bytes_read)
    assert seen == (1, 5)


def test_the_baseline_has_every_count_of_the_guard():
    counts = json.loads((ROOT / "benchmarks/baseline.json").read_text())["counts"]
    assert all(isinstance(count, int) and count > 0 for count in counts.values())
    assert {name.partition(".")[0] for name in counts} == {
        *("wfdb_record", "shard", "manifest", "epoch", "request", "help", "text"),
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: `make gpu-check` checks it")
def test_without_a_gpu_the_gpu_check_says_so(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit) as ended:
        module("gpu_check").main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "no GPU" in shown.err
    assert json.loads(shown.out.splitlines()[-1]) == {"gpu": None, "ok": None, "checks": {}}


def test_a_gpu_check_that_fails_hides_no_other(module, monkeypatch, tmp_path, capsys):
    check = module("gpu_check")
    script = tmp_path / "one.py"
    script.write_text(
        "import json, sys, time\n"
        "if sys.argv[-1] == 'worker': print(json.dumps({'worker': {'ok': True}}), flush=True); sys.exit('it broke')\n"
        "if sys.argv[-1] == 'serve': time.sleep(600)\n"
        "print(json.dumps({sys.argv[-1]: {'ok': True, 'per_s': 3}}))"
    )
    monkeypatch.setattr(check, "__file__", str(script))
    broke = {"ok": False, "error": "it broke"}
    log = tmp_path / "log"
    assert check._run("worker", [], limit_s=60.0, log=log) == {"worker": {"ok": True}, "resume": broke}
    assert log.read_text() == "it broke\n"
    assert check._run("text", [], limit_s=60.0, log=log) == {"text": {"ok": True, "per_s": 3}}
    assert check._run("serve", [], limit_s=0.5, log=log) == {"serve": {"ok": False, "error": "stopped after 0 s"}}
    assert check._run("text", [], limit_s=0.0, log=log) == {"text": {"ok": False, "error": "no time was left"}}


@pytest.mark.slow
def test_an_archive_is_measured_from_its_build_to_its_hits(module):
    rows = {row.name.removeprefix("archive.").removeprefix("3000."): row for row in module("archive").rows([3000], 4)}
    assert rows["recall"].value == 1.0
    assert {"p95", "p95_filtered", "memory", "disk", "build_per_million"} <= set(rows)
    assert all(row.value > 0 for row in rows.values())


@pytest.mark.slow
def test_what_is_found_on_labelled_ecgs_is_told_by_class_beside_chance_and_keywords(module, tmp_path):
    from tests.support.datasets import synthetic_rows, write_dataset
    from tests.support.serving import make_bundle

    quality = module("archive_quality")
    dataset_uri = write_dataset(tmp_path / "data", synthetic_rows(96))
    rows = {row.name: row for row in quality.quality_rows(dataset_uri, [str(make_bundle(tmp_path))])}
    chance = rows["archive.precision@10.chance"]
    assert {f"archive.recall@50.{way}" for way in ("descriptive", "plain_words", "keywords", "chance")} <= set(rows)
    assert all(0.0 < share < 1.0 for share in chance.detail.values())
    alone, in_sentence = (rows[f"archive.recall@50.plain_words{way}"].detail for way in ("", "_in_template"))
    assert alone != in_sentence
    # Synthetic reports say what their labels say, so words of the labels find them; an untrained bundle is near chance.
    assert rows["archive.precision@10.keywords"].value > 2 * chance.value
    assert rows["archive.recall@50.chance"].value == pytest.approx(50 / 96 / 0.8, abs=0.3)
