"""The bundle: what is written is read back, and what is not whole or of another kind is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
import yaml

from mets_ray import storage
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
    read_facts,
    read_trainer_state,
    untrained_model,
    write_bundle,
)
from mets_ray.model.predictor import Predictor
from mets_ray.tasks.prompt_sets import load_prompt_set
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from tests.support.flips import try_flips

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


def change_facts(folder, *, older=False, **changes):
    """`bundle.json` with other facts and the right digest, or as the last version wrote it, without one."""
    facts = storage.unseal((folder / "bundle.json").read_bytes()).facts | changes
    text = json.dumps(facts | ({"schema_version": 1} if older else {}))
    (folder / "bundle.json").write_bytes(text.encode() if older else storage.seal(text))


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


def test_a_bundle_before_the_mask_and_the_quality_of_leads_is_read_as_it_was(bundle, folder):
    """Neither its settings nor its facts have them; what it takes follows from how it was trained."""
    config = load_config(None, ["encoder.width=4", "encoder.lead_mask=false", "encoder.architecture=resnet1d_18"])
    older = dataclasses.replace(bundle, model=build_model(config, leads=12, text_features=6))
    write_bundle(folder, older, {"epoch": 3})
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("lead_mask", "architecture"):
        del tree["encoder"][name]
    for section, name in (("augment", "usual_leads"), ("augment", "retimed"), ("prepare", "missing_leads")):
        del tree[section][name]
    text = yaml.safe_dump(tree)
    (folder / "config.yaml").write_text(text)
    facts = storage.unseal((folder / "bundle.json").read_bytes()).facts
    del facts["lead_sets"]
    facts["files"]["config.yaml"] = hashlib.sha256(text.encode()).hexdigest()
    for version in (2, 1):
        text = json.dumps(facts | {"schema_version": version})
        (folder / "bundle.json").write_bytes(text.encode() if version == 1 else storage.seal(text))
        loaded = read_bundle(folder)
        assert loaded.config.encoder.lead_mask is False
        assert (loaded.config.augment.usual_leads, loaded.config.augment.retimed) == (0.0, 0.0)
        assert loaded.config.encoder.architecture == "resnet1d_18"
        assert (loaded.facts.lead_sets, loaded.takes_fewer_leads) == ({}, True)
        assert loaded.model.ecg_encoder.stem.lead_bias is None
    whole = bundle.config.model_copy(update={"augment": bundle.config.augment.model_copy(update={"lead_dropout": 0.0})})
    assert not dataclasses.replace(bundle, config=whole).takes_fewer_leads


def test_what_the_encoder_learnt_of_missing_leads_is_kept(bundle, tmp_path):
    model = build_model(bundle.config, leads=12, text_features=6).eval()
    with torch.no_grad():
        model.ecg_encoder.stem.lead_bias.normal_()
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
    signal_mv = torch.randn(2, 12, 1000)
    signal_mv[:, 3:] = 0
    assert torch.equal(load_bundle(str(tmp_path)).model.embed_ecg(signal_mv), model.embed_ecg(signal_mv))


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
    files = storage.unseal((folder / "bundle.json").read_bytes()).facts["files"]
    change_facts(folder, files=files | {"config.yaml": hashlib.sha256(text.encode()).hexdigest()})
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
    features, sides = torch.randn(2, 6), np.array([-1, 1], np.int8)
    assert torch.equal(loaded.model.embed_prompt(features, sides), model.embed_prompt(features, sides))
    assert loaded.model.anchor_sides is None, "as in bundles that are older than sides"
    model.anchor_sides = torch.tensor([1, -1, 0, 1, -1], dtype=torch.int8)
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
    loaded = load_bundle(str(tmp_path))
    assert torch.equal(loaded.model.anchor_sides, model.anchor_sides)
    assert torch.equal(untrained_model(loaded, 1).anchor_sides, model.anchor_sides)
    assert torch.equal(loaded.model.embed_prompt(features, sides), model.embed_prompt(features, sides))
    for wrong in (torch.zeros(4, dtype=torch.int8), torch.zeros(5)):
        model.anchor_sides = wrong
        write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
        with pytest.raises(CheckpointError, match=r"`anchor_features\.safetensors` cannot be read: .*in int8"):
            load_bundle(str(tmp_path))
    (tmp_path / "anchor_features.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"`anchor_features\.safetensors` is not the file"):
        load_bundle(str(tmp_path))


def test_directions_of_anchors_are_kept_and_others_than_one_for_each_are_refused(bundle, tmp_path):
    model = build_model(bundle.config, leads=12, text_features=6)
    model.anchors, model.anchor_directions = torch.randn(5, 6).half(), torch.randn(5, 128)
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
    loaded = load_bundle(str(tmp_path)).model
    assert torch.equal(loaded.anchor_directions, model.anchor_directions)
    features, sides = torch.randn(2, 6), np.zeros(2, np.int8)
    assert torch.equal(loaded.embed_prompt(features, sides), model.embed_prompt(features, sides))
    model.anchor_directions = torch.randn(4, 128)
    write_bundle(tmp_path, dataclasses.replace(bundle, model=model))
    with pytest.raises(
        CheckpointError, match=r"`anchor_directions\.safetensors` cannot be read: .*expected \(5, 128\)"
    ):
        load_bundle(str(tmp_path))


def values_of(folder):
    """All that is read of a bundle."""
    loaded = read_bundle(folder)
    saved = read_trainer_state(folder) if (folder / "trainer_state.pt").exists() else {}
    weights = {key: value.numpy().tobytes() for key, value in loaded.model.state_dict().items()}
    prompts = (loaded.prompts.ids.tobytes(), loaded.prompts.vectors.tobytes())
    beside = (loaded.model.anchors, loaded.model.anchor_directions)
    anchors = [None if one is None else one.numpy().tobytes() for one in beside]
    return weights, prompts, anchors, loaded.facts, loaded.config, loaded.digest, str(saved)


FILES = ["bundle.json", "model.safetensors", "prompt_features.safetensors", "config.yaml", "trainer_state.pt"]


@pytest.mark.parametrize("name", [*FILES, "anchor_features.safetensors", "anchor_directions.safetensors"])
def test_no_flipped_bit_of_a_bundle_changes_a_value(bundle, folder, name):
    if name not in FILES:
        bundle.model.anchors, bundle.model.anchor_directions = torch.randn(5, 6).half(), torch.randn(5, 128)
        write_bundle(folder, bundle, {"epoch": 3})
    found = try_flips(folder / name, lambda: values_of(folder))["found"]
    assert found == 60 if name != "bundle.json" else found >= 45  # the others are blanks


LEADS_SWAPPED = (LEADS[1], LEADS[0], *LEADS[2:])


@pytest.mark.parametrize(
    "change",
    [
        {"leads": LEADS_SWAPPED},
        {"sampling_rate_hz": 500},
        {"duration_s": 5.0},
        {"highpass_hz": 0.67},
        {"synthetic": True},
        {"run": "another"},
        {"train_folds": [1, 2, 10]},
        {"prompt_sets": {}},
        {"files": {}},
        {"schema_version": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_manifest_that_was_changed_is_refused(folder, change):
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | change))
    for read in (load_bundle, read_facts, lambda uri: publish_bundle(uri, f"{uri}-published")):
        with pytest.raises(
            CheckpointError, match=r"`bundle\.json` cannot be read: its content is not what was written"
        ):
            read(str(folder))


def test_swapped_wordings_are_refused(folder):
    manifest = json.loads((folder / "bundle.json").read_text())
    classes = manifest["prompt_sets"]["mets"]["tasks"]["synthetic"]
    first, second = list(classes)[:2]
    classes[first], classes[second] = classes[second], classes[first]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="another digest"):
        load_bundle(str(folder))


def test_the_model_version_changes_with_any_fact(folder):
    versions = set()
    for rate in (100, 250):
        change_facts(folder, sampling_rate_hz=rate)
        versions.add(Predictor(load_bundle(str(folder))).model_version)
    assert len(versions) == 2
    assert all(version.startswith("run#") and len(version) == len("run#") + 8 for version in versions)


def test_a_bundle_of_the_last_version_is_loaded_and_says_what_cannot_be_checked(bundle, folder, caplog):
    change_facts(folder, older=True)
    loaded = load_bundle(str(folder))
    assert "schema version 1: its facts and prompts have no digest" in caplog.text
    assert loaded.facts.model_copy(update={"files": {}, "schema_version": BUNDLE_SCHEMA_VERSION}) == bundle.facts
    assert len(loaded.digest) == 64
    publish_bundle(str(folder), str(folder.with_name("again")))  # which gives it a digest
    caplog.clear()
    assert load_bundle(str(folder.with_name("again"))).facts.schema_version == BUNDLE_SCHEMA_VERSION
    assert not caplog.text


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "prompt_features.safetensors", "config.yaml"])
def test_a_file_that_the_manifest_does_not_list_is_refused(folder, older, name):
    files = storage.unseal((folder / "bundle.json").read_bytes()).facts["files"]
    for listed in ({}, {key: value for key, value in files.items() if key != name}):
        change_facts(folder, older=older, files=listed)
        with pytest.raises(CheckpointError, match="is not the file that"):
            load_bundle(str(folder))


@pytest.mark.parametrize("name", ["anchor_features.safetensors", "anchor_directions.safetensors"])
def test_anchors_that_the_manifest_does_not_list_are_refused(folder, name):
    (folder / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"`{name}` is not the file"):
        load_bundle(str(folder))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a\\b", "x\0", "more.bin"])
def test_other_file_names_in_a_manifest_are_refused(folder, older, name):
    files = storage.unseal((folder / "bundle.json").read_bytes()).facts["files"]
    change_facts(folder, older=older, files=files | {name: "0" * 64})
    with pytest.raises(CheckpointError, match="names the file"):
        load_bundle(str(folder))


@pytest.mark.parametrize("run", ["../../../x", "a/b", "..", "a\\b", "x\0", ""])
def test_a_run_s_name_is_no_path(folder, run):
    change_facts(folder, run=run)  # scores are kept in a folder of this name
    with pytest.raises(CheckpointError, match="is not the name of a run"):
        load_bundle(str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"7", b'{"a": 1'])
def test_a_manifest_that_is_none_is_named(folder, content):
    (folder / "bundle.json").write_bytes(content)
    for read in (load_bundle, read_facts):
        with pytest.raises(CheckpointError, match=r"`bundle\.json` cannot be read") as error:
            read(str(folder))
        assert error.value.hint


@pytest.mark.parametrize("name", ["model.safetensors", "prompt_features.safetensors", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff\xfe", b"{: [", b"[1]", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_with_the_right_hash_that_cannot_be_read_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    files = storage.unseal((folder / "bundle.json").read_bytes()).facts["files"]
    change_facts(folder, files=files | {name: hashlib.sha256(content).hexdigest()})
    with pytest.raises(CheckpointError, match=f"`{name}`") as error:
        load_bundle(str(folder))
    assert error.value.hint
    assert error.value.where == str(folder)


def test_weights_that_do_not_fit_the_facts_are_named(folder):
    change_facts(folder, leads=LEADS[:3])
    with pytest.raises(CheckpointError, match=r"`model\.safetensors` cannot be read"):
        load_bundle(str(folder))


@pytest.mark.parametrize("content", [None, b"", b"x" * 1000, b"PK\x03\x04"])
def test_a_trainer_state_that_is_none_is_named(folder, content):
    path = folder / "trainer_state.pt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"`trainer_state\.pt` cannot be read") as error:
        read_trainer_state(folder)
    assert error.value.hint


def test_with_a_key_only_bundles_that_were_signed_with_it_are_loaded(folder, tmp_path, monkeypatch):
    unsigned, signed = str(tmp_path / "unsigned"), str(tmp_path / "signed")
    publish_bundle(str(folder), unsigned)
    monkeypatch.setenv("METS_RAY_BUNDLE_KEY", "a key")
    publish_bundle(str(folder), signed)
    assert load_bundle(signed).facts.run == "run"
    with pytest.raises(CheckpointError, match="is not signed with the key in METS_RAY_BUNDLE_KEY"):
        load_bundle(unsigned)
    change_facts(tmp_path / "signed", sampling_rate_hz=500)  # a forger without the key
    with pytest.raises(CheckpointError, match="is not signed"):
        load_bundle(signed)
    publish_bundle(str(folder), signed)
    monkeypatch.setenv("METS_RAY_BUNDLE_KEY", "another key")
    with pytest.raises(CheckpointError, match="is not signed"):
        load_bundle(signed)
    monkeypatch.delenv("METS_RAY_BUNDLE_KEY")
    assert load_bundle(signed).facts.run == "run"


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
    with pytest.raises(CheckpointError, match=r"[Ww]eights.only"):
        read_trainer_state(folder)


def test_the_module_of_a_bundles_own_source_is_not_imported(bundle, folder, tmp_path, monkeypatch):
    write_bundle(folder, bundle, {"epoch": 3})
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    tree["prepare"]["source"] = {"kind": "evil_module:Csv", "folder": "/x"}
    text = yaml.safe_dump(tree)
    (folder / "config.yaml").write_text(text)
    facts = storage.unseal((folder / "bundle.json").read_bytes()).facts
    facts["files"]["config.yaml"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_bundle(folder).config.prepare.source.kind == "evil_module:Csv"


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "con", ""])
def test_prompt_sets_of_a_bundle_have_plain_names(bundle, folder, name):
    write_bundle(folder, bundle, {"epoch": 3})
    facts = storage.unseal((folder / "bundle.json").read_bytes()).facts
    (first, *_) = facts["prompt_sets"].values()
    facts["prompt_sets"]["mine"] = first | {"name": name}
    (folder / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))
    with pytest.raises(CheckpointError):
        read_bundle(folder)
