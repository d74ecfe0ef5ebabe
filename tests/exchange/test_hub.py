"""Bundles on the hub, over real HTTP to a hub of our own: pushed, fetched at a commit, and what is refused."""

import json

import pytest

import mets_ray
from mets_ray.bundles.hub import parse_hub_uri
from mets_ray.errors import CheckpointError
from mets_ray.exchange.command import run_export
from mets_ray.model.bundle import load_bundle, newest_bundle, read_facts
from tests.support.hub import TOKEN, running_hub
from tests.support.serving import make_bundle, synthetic_ecg


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    return str(make_bundle(tmp_path_factory.mktemp("trained")))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def test_what_is_pushed_is_loaded_at_its_commit(hub, bundle_uri, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run_export([f"bundle_uri={bundle_uri}", f"output_uri={tmp_path / 'out'}", "push_to_hub=user/name", "private=false"])
    hub_uri = json.loads(capsys.readouterr().out)["hub_uri"]
    ((commit, files),) = hub.repositories["user/name"].items()
    assert hub_uri == f"hf://user/name@{commit}"
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert set(files) - {".gitattributes"} == written
    monkeypatch.delenv("HF_TOKEN")
    loaded = load_bundle(hub_uri)
    assert loaded.digest == load_bundle(bundle_uri).digest
    assert read_facts(hub_uri).run == loaded.facts.run
    assert newest_bundle(hub_uri) == hub_uri
    rows = mets_ray.load_bundle(hub_uri).zero_shot(synthetic_ecg(), prompt_set="mets", task="synthetic")
    assert sum(row.score for row in rows) == pytest.approx(1, abs=1e-5)
    assert sorted(hub.fetched) == sorted(set(hub.fetched)), "a file was fetched twice"
    assert not {"ecg_encoder.onnx", "README.md"} & set(hub.fetched)
    hub.repositories.clear()
    assert load_bundle(hub_uri).digest == loaded.digest  # from the cache


def test_a_private_repository_needs_the_token(hub, bundle_uri, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run_export([f"bundle_uri={bundle_uri}", f"output_uri={tmp_path / 'out'}", "push_to_hub=user/mine", "onnx=false"])
    hub_uri = json.loads(capsys.readouterr().out)["hub_uri"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=f"`{hub_uri}` cannot be fetched") as caught:
        load_bundle(hub_uri)
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_bundle(hub_uri).facts.run == load_bundle(bundle_uri).facts.run


def test_a_hub_that_refuses_is_told_of(hub, bundle_uri, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SystemExit) as ended:
        run_export(
            [f"bundle_uri={bundle_uri}", f"output_uri={tmp_path / 'out'}", "push_to_hub=user/name", "onnx=false"]
        )
    assert ended.value.code == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "`user/name` could not be pushed" in error
    assert "hf_wrong" not in error
    assert load_bundle(str(tmp_path / "out")).digest == load_bundle(bundle_uri).digest
    for repository in ("user/nobody", "user/name"):
        hub.repositories["user/name"] = {"1" * 40: {}}
        with pytest.raises(CheckpointError, match="cannot be fetched"):
            load_bundle(f"hf://{repository}@{'3' * 40}")
    with pytest.raises(CheckpointError, match=r"holds no bundle\.json"):
        load_bundle(f"hf://user/name@{'1' * 40}")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://user/name", "names no revision.*a branch name moves"),
        ("hf://user/name@", "names no revision.*a branch name moves"),
        ("hf://user/name@main", "`main`, not a commit.*may move"),
        ("hf://user/name@v1.0", "not a commit"),
        (f"hf://user/name@{'a' * 39}", "not a commit"),
        ("hf://name", "is not of the form"),
        (f"hf://user/name/bundle@{'a' * 40}", "is not of the form"),
    ],
)
def test_a_uri_without_a_commit_is_refused(uri, words):
    for read in (load_bundle, read_facts, newest_bundle):
        with pytest.raises(CheckpointError, match=f"(?s){words}"):
            read(uri)


def test_a_uri_is_a_repository_and_a_commit():
    assert parse_hub_uri(f"hf://user/my.name-2@{'0123abcdef' * 4}") == ("user/my.name-2", "0123abcdef" * 4)
