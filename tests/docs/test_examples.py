"""The programs of examples/ and the Python of README and guide, run as a user runs them."""

import csv
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.docs.records import write_csv_folder, write_record
from tests.support.serving import make_bundle

PAGES = ("README.md", "docs/guide/score.md", "docs/reference/python.md")
RUN = "runs/pretrain-20260101-000000-0000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a bundle and a record under the names that the documentation uses."""
    folder = tmp_path_factory.mktemp("user")
    make_bundle(folder / "runs", run=RUN.removeprefix("runs/"))
    for index in range(6):
        write_record(folder / "records", f"{index:05d}_lr", index)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a program in the user's folder, in this process: torch's import takes longer than they do."""

    def run(script, *words):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_the_documentation(folder, run, page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "load_bundle" in block]
    (tmp_path / "page.py").write_text(code)
    shown = run(tmp_path / "page.py")
    assert "atrial fibrillation" in shown or "sinus rhythm" in shown


def test_score_one_ecg(run):
    words = ["atrial fibrillation", "sinus rhythm", "left bundle branch block"]
    rows = run(ROOT / "examples/score_one_ecg.py", f"{RUN}/bundle", "records/00001_lr", *words).splitlines()
    found = [re.fullmatch(r"(\d\.\d{3})  (.+)  \(z-score ([+-]\d+\.\d|unknown)\)", row).groups() for row in rows]
    assert {name for _, name, _ in found} == set(words)
    scores = [float(score) for score, _, _ in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=2e-3)


def test_score_one_ecg_says_what_is_wrong_with_a_record(folder):
    header = folder / "records/00002_lr.hea"
    header.write_text(header.read_text().replace("/mV", "/mmHg"))
    command = [sys.executable, ROOT / "examples/score_one_ecg.py", f"{RUN}/bundle", "records/00002_lr", "a", "b"]
    failed = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "unit" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_own_labels(folder, run):
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["record", "label"])
        table.writerows([["00000_lr", "SR"], ["00001_lr", "AFIB"], ["00003_lr", "SR"], ["00004_lr", "CLBBB"]])
    lines = run(ROOT / "examples/own_labels.py", f"{RUN}/bundle", "records", "labels.csv").splitlines()
    assert [line.split()[0] for line in lines] == ["SR", "AFIB", "CLBBB"]
    assert all(0 <= float(line.split()[2]) <= 1 for line in lines)
    assert lines[0].endswith("(2 of 4 records)")


def test_own_source(tmp_path):
    from mets_ray.config.load import load_config
    from mets_ray.ecg.preprocess import SignalConfig
    from mets_ray.errors import ConfigError, RecordError
    from mets_ray.sources.catalogue import read_manifest, source_of

    written = write_csv_folder(tmp_path, 4)
    config = load_config(None, ["prepare.source=examples.own_source:CsvFolder", f"prepare.source.uri={tmp_path}"])
    manifest = read_manifest(config, SignalConfig(sampling_rate_hz=100, duration_s=10.0))
    assert [row.record_id for row in manifest.rows] == list(written)
    assert manifest.rows[0].fold == manifest.rows[1].fold  # one patient
    assert manifest.rows[0].statements == ("Sinus rhythm", "Normal ECG")
    source = source_of(config)
    for row in manifest.rows:
        ecg = source.read(row.record_uri)
        assert ecg.leads == written[row.record_id].leads
        assert ecg.sampling_rate_hz == 500
        np.testing.assert_allclose(ecg.signal_mv, written[row.record_id].signal_mv, atol=1e-4)
    (tmp_path / "ecg0.csv").write_text("I,II\nnot,numbers\n")
    with pytest.raises(RecordError, match="not numbers") as unreadable:
        source.read(manifest.rows[0].record_uri)
    assert unreadable.value.reason == "unreadable_table"
    with pytest.raises(RecordError, match="does not exist") as missing:
        source.read(f"{tmp_path}/absent.csv")
    assert missing.value.reason == "missing_file"
    with pytest.raises(ConfigError, match=r"prepare\.source\.uri"):
        source_of(load_config(None, ["prepare.source=examples.own_source:CsvFolder"])).check()
