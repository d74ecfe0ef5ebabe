"""The layers of the house, held by reading every import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mets_ray"
LAYERS = {
    0: "errors config folds ecg report translate schema metrics plan resources console published balanced tables "
    "embedded linear_probe prompt_files sensitivity calibration report_page sections statements six_sets",
    1: "storage s3 sources synthetic synthetic_signal figures pictures evaluation_pictures shard_writer shard_reader "
    "failures batch_log score_files scoring examples evaluation_page",
    2: "encoders model augment loss collectives zero_shot checkpoint text_store tasks scorer "
    "tracking optimization accumulation supervised scene evaluation_files",
    3: "cluster data text train train_worker train_state train_console validation embed baselines evidence "
    "evaluate score job serve",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}
RAY_MODULES = {
    "cluster",
    "data",
    "text",
    "train_worker",
    "train_state",
    "train_console",
    "validation",
    "embed",
    "baselines",
    "evidence",
}  # what other layer-3 modules may import; train_* and validation are train's own parts, the last two are evaluate's


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "mets_ray":
                yield from (f"mets_ray.{alias.name}" for alias in node.names)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_layers_only(path):
    module = module_of(path)
    assert module in LAYER_OF, f"{module} has no layer: add it to the table"
    layer = LAYER_OF[module]
    for name in imports_of(path):
        root = name.split(".")[0]
        if root == "ray":
            assert layer == 3, f"{module} names ray"
            assert module != "serve" or path.stem in ("__init__", "deployments", "telemetry"), f"{path.stem} names ray"
        if root == "torch":
            assert layer >= 2, f"{module} names torch"
        if name.startswith("torch.distributed"):
            assert module == "collectives", f"{module} names torch.distributed"
        if name.startswith("mets_ray."):
            other = name.split(".")[1]
            assert LAYER_OF[other] <= layer, f"{module} imports {other} from above"
            if layer == 3 and LAYER_OF[other] == 3 and other != module:
                assert other in RAY_MODULES, f"{module} imports {other}, another job's module"


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = "import sys, mets_ray; sys.exit(bool({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_jobs_are_short_and_import_no_ray():
    for path in (PACKAGE.parent / "jobs").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 50, path
        assert not [name for name in imports_of(path) if name.split(".")[0] in ("ray", "torch")], path
