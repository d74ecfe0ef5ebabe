"""locks/: every version and every hash that the images are made of, beside pyproject.toml and constraints.txt."""

import re
import tomllib
from functools import cache
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Tools for developers are installed from constraints.txt and are in no image.
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"dev", "docs"})
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)", re.MULTILINE)


@cache
def lock(name):
    """Package → version of a lock file; each line of the file must be a pin or one of its hashes."""
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    assert PINNED.sub("", text).strip() == "", "a line that is neither a version nor a hash"
    return {canonicalize_name(package): Version(version) for package, version, _ in PINNED.findall(text)}


def constraints():
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def test_there_is_a_lock_for_the_package_and_for_each_extra():
    assert sorted(file.stem for file in (ROOT / "locks").iterdir()) == sorted(["base", *EXTRAS])
    made = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1)
    assert sorted(made.split()) == EXTRAS


@pytest.mark.parametrize("name", ["base", *EXTRAS])
def test_what_pyproject_asks_for_is_locked_to_a_version_that_fits(name):
    asked = PROJECT["dependencies"] if name == "base" else PROJECT["optional-dependencies"][name]
    held = lock("base") | lock(name)
    for requirement in map(Requirement, asked):
        version = held[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_all_locks_can_be_installed_together():
    base = lock("base")
    seen = {}
    for name in EXTRAS:
        assert not set(base) & set(lock(name)), "an extra adds to what is there already"
        for package, version in lock(name).items():
            assert seen.setdefault(package, version) == version, package


def test_the_images_have_the_versions_that_were_tested():
    tested = constraints()
    for name in ("base", *EXTRAS):
        differ = {package: (version, tested[package]) for package, version in lock(name).items()
                  if package in tested and tested[package] != version}  # fmt: skip
        assert differ == {}, "run `make locks`"
    assert lock("base")["torch"] == tested["torch"]
    assert lock("base")["torch"].local is None, "PyPI's build, with CUDA"
    assert [package for package in lock("base") if package.startswith("nvidia-")]


def test_constraints_allow_every_extra():
    asked = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in map(Requirement, chain.from_iterable(asked)):
        version = constraints().get(canonicalize_name(requirement.name))
        assert version is None or requirement.specifier.contains(version), requirement


def test_an_edit_of_a_lock_is_noticed(monkeypatch, tmp_path):
    (tmp_path / "locks").mkdir()
    text = (ROOT / "locks" / "aws.txt").read_text()
    monkeypatch.setattr("tests.cluster.test_locks.ROOT", tmp_path)
    for number, broken in enumerate((
        text.replace("--hash=sha256:", "--hash=sha256:x", 1),
        text + "boto3\n",
        re.sub(r" \\\n    --hash=sha256:\w+", "", text, count=2),
        "--index-url https://example.org\n" + text,
    )):  # fmt: skip
        (tmp_path / "locks" / f"{number}.txt").write_text(broken)
        with pytest.raises(AssertionError, match="neither a version nor a hash"):
            lock(str(number))
