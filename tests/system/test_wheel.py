"""The wheel in an environment of its own, in a folder that has nothing to do with this repository."""

import json
import os
import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with the wheel; its dependencies are those that are installed here, without this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # A path in a .pth file is searched for packages; the .pth files in it, such as this checkout's, are not read.
    (home / packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True)
    return home


def test_the_wheel_has_the_files_of_the_packaged_bundles_and_of_export(environment):
    def files_of(folder):
        paths = [*folder.glob("bundles/*/**/*"), *folder.glob("exchange/*")]
        return {path.relative_to(folder) for path in paths if path.is_file() and path.suffix != ".pyc"}

    (installed,) = environment.glob("lib/python*/site-packages/mets_ray")
    assert files_of(installed) == files_of(ROOT / "mets_ray")


def test_the_wheel_runs_the_quickstart(environment, tmp_path):
    where = [str(environment / "bin" / "python"), "-c", "import mets_ray; print(mets_ray.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(environment))
    words = ["prepare.source.records=300", "train.epochs=2", "train.batch_size=48", "encoder.width=4"]
    words += ["train.num_workers=1", "evaluate.bootstrap_samples=50"]
    done = subprocess.run(
        [str(environment / "bin" / "mets-ray"), "quickstart", *words],
        cwd=tmp_path,
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["tasks"]["synthetic"]["value"] > 0.0
    assert result["bundle_uri"].startswith(str(tmp_path / ".runs"))
    assert "SYNTHETIC" in done.stderr
    for name in ("report_uri", "table_uri"):
        assert (tmp_path / result[name]).stat().st_size > 1000
