"""Jobs as README and how-tos write them, typed by a user with a folder of ECGs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.records import write_csv_folder, write_wfdb_folder
from tests.docs.test_commands import blocks, commands

BUNDLE = "runs/pretrain-20260101-000000-0000/bundle"
TINY = "encoder.width=4 train.epochs=1 train.batch_size=16 evaluate.bootstrap_samples=20"


def run_line(line, folder, address):
    """Run one command as typed, and return the JSON of its last line."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAY_ADDRESS": address}
    run = subprocess.run(
        ["bash", "-ec", line], cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, f"{line}\n{run.stderr[-3000:]}"
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.timeout(900)
def test_your_own_data_of_the_readme(ray_address, tmp_path):
    (tmp_path / "records").mkdir()
    write_wfdb_folder(tmp_path / "records", 80)
    (prompts,) = blocks(ROOT / "docs/guide/evaluate.md", "json")
    (tmp_path / "clinic.json").write_text(prompts)
    (block,) = [block for block in blocks(ROOT / "README.md") if "prepare.source=wfdb" in block]
    lines = [line for line in block.splitlines() if line.startswith("mets-ray")]
    assert [line.split()[1] for line in lines] == ["prepare", "pretrain", "evaluate", "score"]
    prepared = run_line(lines[0], tmp_path, ray_address)
    assert prepared["records_in"] == prepared["records_out"] == 80
    trained = run_line(f"{lines[1]} {TINY}", tmp_path, ray_address)
    bundle_uri = str(Path(trained["bundle_uri"]).relative_to(tmp_path))
    evaluated = run_line(f"{lines[2].replace(BUNDLE, bundle_uri)} {TINY}", tmp_path, ray_address)
    assert Path(evaluated["report_uri"]).is_file()
    assert set(evaluated["tasks"]) == {"rhythm"}
    scored = run_line(lines[3].replace(BUNDLE, bundle_uri), tmp_path, ray_address)
    assert scored["records"] == 80


def test_your_own_source_of_the_how_to(ray_address, tmp_path):
    (tmp_path / "records").mkdir()
    write_csv_folder(tmp_path / "records", 12)
    (line,) = [line for line in commands(ROOT / "docs/extend/source.md") if "own_source" in line]
    prepared = run_line(line.replace("PYTHONPATH=.", f"PYTHONPATH={ROOT}"), tmp_path, ray_address)
    assert prepared["records_in"] == prepared["records_out"] == 12
