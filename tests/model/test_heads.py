"""Heads of a bundle: written with it, read back, scored, and refused where they belong to another one."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from mets_ray import storage
from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.model.bundle import load_bundle, read_bundle, write_bundle
from mets_ray.model.heads import HeadFacts, head_file
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.model.predictor import Predictor
from tests.support.calibrations import made_up_file, write_file
from tests.support.heads import CLASSES, made_up_head, other_encoder, with_heads
from tests.support.serving import make_bundle, synthetic_ecg

WORDS = {"prompt_set": "descriptive", "task": "synthetic"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def adapted(bare, tmp_path_factory):
    return with_heads(bare, tmp_path_factory.mktemp("adapted"), "linear", "text", "finetune")


@pytest.fixture
def folder(adapted, tmp_path):
    return shutil.copytree(adapted, tmp_path / "bundle")


def predictor_of(uri):
    return Predictor(load_bundle(str(uri)), encoder_runtime="torch")


def change_files(folder, change):
    """`bundle.json` with other files and the right digest."""
    facts = storage.unseal((folder / "bundle.json").read_bytes()).facts
    facts["files"] = change(facts["files"])
    (folder / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))


def test_a_new_version_has_the_old_files_byte_for_byte_and_its_heads(bare, adapted):
    before, after = load_bundle(str(bare)), load_bundle(str(adapted))
    assert (before.heads, list(after.heads)) == ({}, ["linear", "text", "finetune"])
    assert after.digest != before.digest
    files = dict(after.facts.files)
    assert {files.pop(head_file(name)) for name in after.heads}
    assert files == before.facts.files
    for name in files:
        assert (adapted / name).read_bytes() == (bare / name).read_bytes()
    for name, head in after.heads.items():
        assert head.facts.method == name
        assert head.facts.model_sha256 == before.facts.files["model.safetensors"]
    assert after.heads["linear"].facts.parent_digest == before.digest
    assert after.heads["text"].facts.parent_digest not in (before.digest, after.digest)  # that with one head
    # Zero-shot is that of the parent.
    rows = [predictor_of(uri).zero_shot(synthetic_ecg(), **WORDS) for uri in (bare, adapted)]
    assert rows[0] == rows[1]


def test_a_head_of_a_name_takes_the_place_of_the_one_before(adapted, tmp_path):
    again = with_heads(adapted, tmp_path, "text")
    assert sorted(load_bundle(str(again)).heads) == ["finetune", "linear", "text"]


def test_calibrations_come_along_for_the_new_digest(bare, tmp_path):
    parent = shutil.copytree(bare, tmp_path / "parent" / "bundle")
    write_file(parent, made_up_file(parent))
    adapted = load_bundle(str(with_heads(parent, tmp_path, "linear")))
    (file,) = adapted.calibrations.files
    assert (file.bundle_digest, adapted.calibrations.left_out) == (adapted.digest, {})


def test_the_scores_of_a_head_are_its_formula(adapted):
    predictor, ecg = predictor_of(adapted), synthetic_ecg()
    assert list(predictor.heads) == ["linear", "text", "finetune"]
    signal_uv = predictor.windows(ecg).signal_uv
    embeddings, features = predictor.encode(signal_uv)
    for name in ("linear", "text"):
        head = predictor.bundle.heads[name]
        expected = {"linear": features, "text": embeddings}[name][0] @ head.weight.T + head.bias
        rows = predictor.predict(ecg, head=name)
        assert [row.class_name for row in rows] == [CLASSES[column] for column in np.argsort(-expected)]
        np.testing.assert_allclose([row.logit for row in rows], sorted(expected, reverse=True), rtol=1e-5)
        np.testing.assert_allclose([row.score for row in rows], [1 / (1 + np.exp(-row.logit)) for row in rows])
    # The fine-tuned one has an encoder of its own: the same as in torch with these weights.
    head, model = predictor.bundle.heads["finetune"], load_bundle(str(adapted)).model
    model.load_state_dict(model.state_dict() | dict(head.own_model))
    with torch.no_grad():
        own = model.eval().embed_ecg(microvolts_to_millivolts(signal_uv, model)).numpy()
    expected = own[0] @ head.weight.T + head.bias
    found = {row.class_name: row.logit for row in predictor.predict(ecg, head="finetune")}
    np.testing.assert_allclose([found[name] for name in CLASSES], expected, rtol=1e-4)
    assert np.abs(expected - (embeddings[0] @ head.weight.T + head.bias)).max() > 1e-3
    assert predictor.untrained(1).heads == {}


def test_a_long_recording_has_the_mean_of_its_windows_logits(adapted):
    predictor, ecg = predictor_of(adapted), synthetic_ecg(duration_s=25)
    windows = predictor.windows(ecg).signal_uv
    assert len(windows) == 3
    found = {row.class_name: row.logit for row in predictor.predict(ecg, head="text")}
    mean = predictor.head_logits(["text"], windows)["text"].mean(axis=0)
    np.testing.assert_allclose([found[name] for name in CLASSES], mean, rtol=1e-5)


def test_a_name_that_no_head_has_is_told_with_those_that_there_are(bare, adapted):
    with pytest.raises(ConfigError, match="no head 'other'") as caught:
        predictor_of(adapted).predict(synthetic_ecg(), head="other")
    assert "linear, text, finetune" in caught.value.hint
    with pytest.raises(ConfigError, match="no head 'text'") as caught:
        predictor_of(bare).predict(synthetic_ecg(), head="text")
    assert "mets-ray adapt" in caught.value.hint


def test_a_head_of_another_bundle_is_refused_by_its_origin(folder, tmp_path):
    other = make_bundle(tmp_path, run="pretrain-20260101-000000-other", seed=1)
    stray = shutil.copyfile(folder / "head_text.safetensors", other / "head_text.safetensors")
    with pytest.raises(CheckpointError, match=r"is a head of another bundle.*pretrain-20260101-000000-test") as caught:
        load_bundle(str(other))
    assert "mets-ray adapt" in caught.value.hint
    # Also where its manifest was made to name it.
    sha256 = storage.unseal((folder / "bundle.json").read_bytes()).facts["files"][stray.name]
    change_files(other, lambda files: files | {stray.name: sha256})
    with pytest.raises(CheckpointError, match=r"the head `text` is of another bundle.*pretrain-20260101-000000-test"):
        load_bundle(str(other))


def test_a_damaged_missing_or_renamed_head_is_named(folder):
    path = folder / "head_linear.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"head_linear\.safetensors` is not the file"):
        load_bundle(str(folder))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"head_linear\.safetensors` is not the file"):
        load_bundle(str(folder))
    renamed = folder / "head_mine.safetensors"
    renamed.write_bytes(content)
    change_files(folder, lambda files: {renamed.name if name == path.name else name: of for name, of in files.items()})
    with pytest.raises(CheckpointError, match="it is the head `linear`"):
        load_bundle(str(folder))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bias": np.full(3, np.nan, np.float32)}, "`bias` does not fit its 3 classes"),
        ({}, "does not fit its 2 classes"),
    ],
)
def test_arrays_that_are_no_head_are_refused(bare, tmp_path, changes, words):
    bundle = load_bundle(str(bare))
    classes = CLASSES if changes else CLASSES[:2]
    head = dataclasses.replace(made_up_head(bundle, classes=classes), **changes)
    write_bundle(tmp_path, dataclasses.replace(bundle, heads={"mine": head}))
    with pytest.raises(CheckpointError, match=words):
        read_bundle(tmp_path)


def test_an_encoder_that_does_not_fit_is_refused(bare, tmp_path):
    bundle = load_bundle(str(bare))
    own = other_encoder(bundle)
    for wrong in ({"ecg_projection.bias": torch.zeros(3)}, {"unknown": torch.zeros(3)}):
        head = made_up_head(bundle, method="finetune", own_model=own | wrong)
        with pytest.raises(CheckpointError, match=r"head_mine\.safetensors` cannot be read"):
            Predictor(dataclasses.replace(bundle, heads={"mine": head}), encoder_runtime="torch")


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "a" * 65, "-a", "a.b"])
def test_the_name_of_a_head_is_no_path(name):
    with pytest.raises(ValueError, match="is not the name of a head"):
        HeadFacts.__pydantic_validator__.validate_assignment(HeadFacts.model_construct(), "name", name)
