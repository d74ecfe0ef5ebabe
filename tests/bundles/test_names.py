"""Bundles by name: what is in the package is found everywhere that takes a bundle_uri, and nothing else is."""

import shutil

import pytest

import mets_ray
from mets_ray import bundles
from mets_ray.cli import COMMANDS
from mets_ray.config.kinds import places, with_places
from mets_ray.config.load import load_config
from mets_ray.errors import CheckpointError
from mets_ray.exchange.portable import local_places
from mets_ray.job import load_settings, parse_words
from mets_ray.model.bundle import load_bundle, newest_bundle, read_facts
from mets_ray.serve.deployments import build
from mets_ray.serve.run import _or_packaged, read_settings
from tests.support.serving import make_bundle, synthetic_ecg


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture
def packaged(made, tmp_path, monkeypatch):
    """An installation with one packaged bundle, and a working folder with nothing in it."""
    root = tmp_path / "package"
    shutil.copytree(made, root / bundles.DEMO_NAME)
    (root / "__pycache__").mkdir()
    (root / "unfinished").mkdir()
    monkeypatch.setattr(bundles, "PACKAGED_FOLDER", root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


def test_a_name_is_the_packaged_folder(packaged, made):
    assert bundles.packaged_names() == ["ptbxl-demo"]
    expected = load_bundle(str(made))
    assert load_bundle("ptbxl-demo").digest == expected.digest
    assert read_facts("ptbxl-demo") == expected.facts
    assert newest_bundle("ptbxl-demo") == "ptbxl-demo"
    rows = mets_ray.load_bundle("ptbxl-demo").zero_shot(synthetic_ecg(), prompt_set="mets", task="synthetic")
    assert sum(row.score for row in rows) == pytest.approx(1, abs=1e-5)


def test_a_name_goes_through_the_settings_as_it_is_and_a_path_becomes_absolute(packaged):
    words = ["evaluate.bundle_uri=ptbxl-demo", "score.bundle_uri=./ptbxl-demo", "train.init_from=ptbxl-demo"]
    words += ["evaluate.compare_to=ptbxl-demo"]
    config = with_places(load_config(None, words), bundles.storage.absolute)
    assert (config.evaluate.bundle_uri, config.train.init_from) == ("ptbxl-demo", "ptbxl-demo")
    assert config.evaluate.compare_to == "ptbxl-demo"
    assert config.score.bundle_uri == str(packaged.parent / "here" / "ptbxl-demo")
    assert {place.key for place in places(config)} == {"run_uri", "score.bundle_uri"}


@pytest.mark.parametrize("uri", ["ptbxl-dmo", "./ptbxl-demo", "unfinished", "__pycache__", "../package/nothing"])
def test_what_is_no_bundle_is_refused_with_the_names_that_are(packaged, uri):
    for read in (load_bundle, read_facts, newest_bundle):
        with pytest.raises(CheckpointError) as caught:
            read(uri)
        assert f"`{uri}`" in caught.value.fact
        assert caught.value.hint.endswith("packaged in this installation: `ptbxl-demo`")


@pytest.mark.parametrize("name", ["evaluate", "score", "pretrain"])
def test_a_job_refuses_a_wrong_name_before_ray_starts(packaged, name):
    key = "train.init_from" if name == "pretrain" else f"{name}.bundle_uri"
    for uri, words in (("ptbxl-dmo", "neither a folder nor a packaged"), ("hf://user/name@main", "not a commit")):
        with pytest.raises(CheckpointError, match=words):
            load_settings(COMMANDS[name], parse_words(COMMANDS[name], [f"{key}={uri}"]))
    load_settings(COMMANDS[name], parse_words(COMMANDS[name], [f"{key}=ptbxl-demo"]))


def test_an_installation_without_bundles_says_so(packaged, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "PACKAGED_FOLDER", tmp_path / "nowhere")
    for read in (load_bundle, read_facts, newest_bundle):
        with pytest.raises(CheckpointError, match=r"holds no bundle\.json|contains none") as caught:
            read("ptbxl-demo")
        assert caught.value.hint.endswith("no bundle is packaged in this installation")
    assert _or_packaged(read_settings(None, [])).bundle_uri == ".runs"


def test_serve_takes_the_packaged_bundle_until_there_is_another(packaged, made, capsys):
    config = _or_packaged(read_settings(None, []))
    assert config.bundle_uri == "ptbxl-demo"
    assert "no bundle under .runs yet: serving the packaged one, `ptbxl-demo`" in capsys.readouterr().err
    assert build(config)._bound_deployment.init_args[1] == "ptbxl-demo"
    run = packaged.parent / "here" / ".runs" / "pretrain-20260101-000000-test"
    shutil.copytree(made, run / "bundle")
    config = _or_packaged(read_settings(None, []))
    assert config.bundle_uri == ".runs"
    assert build(config)._bound_deployment.init_args[1] == str(run / "bundle")
    assert capsys.readouterr().err == ""


def test_serve_does_not_take_it_where_another_folder_was_named(packaged):
    config = _or_packaged(read_settings(None, ["bundle_uri=elsewhere"]))
    with pytest.raises(CheckpointError, match="elsewhere` is not a bundle"):
        build(config)


@pytest.mark.parametrize("name", bundles.packaged_names() or [None])
def test_what_is_packaged_is_small_whole_and_tells_nothing_of_a_machine(name):
    if name is None:
        pytest.skip("no bundle is packaged in this checkout")
    folder = bundles.PACKAGED_FOLDER / name
    bundle = load_bundle(name)
    assert (bundle.facts.run, bundle.facts.synthetic) == (name, False)
    assert local_places(bundle.config) == []
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10_000_000
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: mets_ray\nlicense: cc-by-4.0\n")
