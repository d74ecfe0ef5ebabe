"""The bundle: what is written is read back, and what is not whole or of another kind is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from mets_ray.config.load import load_config
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import (
    BUNDLE_SCHEMA_VERSION,
    Bundle,
    BundleFacts,
    build_model,
    load_bundle,
    publish_bundle,
    read_bundle,
    read_trainer_state,
    untrained_model,
    write_bundle,
)
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id

PROMPT = "The ECG of Hypertrophy, a type of diagnostic."


@pytest.fixture
def bundle():
    config = load_config(None, ["encoder.width=4"])
    torch.manual_seed(3)
    facts = BundleFacts(
        run="run",
        sampling_rate_hz=100,
        duration_s=10.0,
        leads=LEADS,
        text_model="org/bert",
        text_revision="0" * 40,
        text_pooling="mean",
        text_max_length=128,
        text_fingerprint="f",
        text_features=6,
        dataset_source="ptbxl",
        dataset_sha256="d",
        synthetic=False,
        train_folds=(1, 2),
        validation="hash:0.1",
        prompt_sets={"mets": load_prompt_set("mets")},
        metrics={"loss": 1.0, "validation_macro_auroc": None},
        history=({"epoch": 1.0, "loss": 1.0, "validation_macro_auroc": None},),
    )
    table = EmbeddingTable.build(np.asarray([text_id(PROMPT)]), np.arange(6, dtype=np.float16)[None])
    return Bundle(build_model(config, leads=12, text_features=6), config, facts, table)


@pytest.fixture
def folder(bundle, tmp_path):
    path = tmp_path / "checkpoint"
    path.mkdir()
    write_bundle(path, bundle, {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}}})
    return path


def test_what_is_written_is_read_back(bundle, folder):
    loaded = read_bundle(folder)
    signal_mv = torch.randn(2, 12, 1000)
    bundle.model.eval()
    torch.testing.assert_close(loaded.model.embed_ecg(signal_mv), bundle.model.embed_ecg(signal_mv), rtol=0, atol=0)
    assert not loaded.model.training
    assert loaded.config == bundle.config
    assert loaded.facts.model_copy(update={"files": {}}) == bundle.facts
    np.testing.assert_array_equal(loaded.prompts.lookup(np.asarray([text_id(PROMPT)])), bundle.prompts.vectors)
    assert read_trainer_state(folder)["epoch"] == 3


def test_a_published_bundle_is_whole_without_the_trainer_s_state(bundle, folder, tmp_path):
    publish_bundle(str(folder), str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle" / "trainer_state.pt").exists()
    assert load_bundle(str(tmp_path / "bundle")).facts.run == "run"


def test_float64_weights_stay_float64(bundle, tmp_path):
    bundle.model.double()
    write_bundle(tmp_path, bundle)
    assert read_bundle(tmp_path).model.text_projection.weight.dtype == torch.float64


def test_another_schema_is_refused(folder):
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | {"schema_version": BUNDLE_SCHEMA_VERSION + 1}))
    with pytest.raises(
        CheckpointError, match=f"schema version {BUNDLE_SCHEMA_VERSION + 1}, this mets_ray reads"
    ) as error:
        load_bundle(str(folder))
    assert error.value.hint


def test_settings_of_another_version_are_refused_by_name(folder):
    text = (folder / "config.yaml").read_text().replace("embedding_dimension:", "embedding_size:")
    (folder / "config.yaml").write_text(text)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"]["config.yaml"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    words = r"does not match this version's settings: `encoder\.embedding_size`"
    with pytest.raises(CheckpointError, match=words) as error:
        load_bundle(str(folder))
    assert "version of mets_ray that wrote it" in str(error.value)


def test_the_bias_of_the_sigmoid_loss_is_kept(bundle, tmp_path):
    config = load_config(None, ["encoder.width=4", "text.unit=statement"])
    model = build_model(config, leads=12, text_features=6)
    with torch.no_grad():
        model.logit_bias.fill_(-1.5)
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model, config=config))
    assert load_bundle(str(tmp_path)).model.logit_bias.item() == -1.5


def test_anchors_are_kept_and_one_that_is_not_the_manifest_s_is_refused(bundle, tmp_path):
    model = build_model(bundle.config, leads=12, text_features=6)
    model.anchors = torch.randn(5, 6).half()
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
    loaded = load_bundle(str(tmp_path))
    assert torch.equal(loaded.model.anchors, model.anchors)
    assert torch.equal(untrained_model(loaded, 1).anchors, model.anchors)
    features = torch.randn(2, 6)
    assert torch.equal(loaded.model.embed_prompt(features), model.embed_prompt(features))
    (tmp_path / "anchor_features.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"`anchor_features\.safetensors` is not the file"):
        load_bundle(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "prompt_features.safetensors", "config.yaml"])
@pytest.mark.parametrize("damage", ["changed", "absent"])
def test_a_file_that_is_not_the_manifest_s_is_refused(folder, name, damage):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    if damage == "absent":
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"`{name}` is not the file that `bundle\.json` describes"):
        load_bundle(str(folder))


def test_a_half_written_bundle_is_none(folder):
    (folder / "bundle.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no bundle\.json"):
        load_bundle(str(folder))


def test_pickled_code_in_a_trainer_state_is_not_run(folder):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"epoch": Evil()}, folder / "trainer_state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        read_trainer_state(folder)
