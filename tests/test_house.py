"""What import-linter's contracts in pyproject.toml cannot say about the layers of the house."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "mets_ray"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_contracts_hold():
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_collectives_name_torch_distributed_and_nobody_imports_jobs(path):
    names = list(imports_of(path))
    assert not [name for name in names if name.split(".")[0] == "jobs"]
    if path.name != "collectives.py":
        assert not [name for name in names if name.startswith("torch.distributed")]


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = "import sys, mets_ray; sys.exit(bool({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_jobs_are_short_and_import_no_ray():
    for path in (ROOT / "jobs").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 50, path
        assert not [name for name in imports_of(path) if name.split(".")[0] in ("ray", "torch")], path
