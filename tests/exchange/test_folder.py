"""`mets-ray export`: the folder that others get, and that it answers as the bundle does, with and without torch."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from mets_ray.config.flat import read_flat
from mets_ray.config.kinds import places
from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.config.source import source_class
from mets_ray.config.suggest import settings_of
from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.exchange.command import run_export
from mets_ray.exchange.folder import export
from mets_ray.exchange.portable import portable
from mets_ray.exchange.settings import ExportConfig
from mets_ray.exchange.zero_shot import ZeroShot
from mets_ray.metrics.cross_fitting import CrossFitted
from mets_ray.metrics.reliability import CalibrationErrors
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import load_predictor
from tests.support.calibrations import made_up_file, write_file
from tests.support.heads import with_heads
from tests.support.references import made_up_reference, synthetic_signals, write_reference
from tests.support.serving import make_bundle, synthetic_ecg

CROSS_FITTED = CrossFitted(5, CalibrationErrors(0.25, float("nan")), CalibrationErrors(0.025, 0.1))


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    words = [f"dataset_uri={folder}/data", "prepare.source=ptbxl", f"prepare.source.uri={folder}/ptb-xl"]
    path = make_bundle(folder, *words, "encoder.lead_mask=true")
    write_reference(path, made_up_reference(path, synthetic_signals(range(60))))
    return str(path)


@pytest.fixture(scope="module")
def exported(bundle_uri, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "export"
    export(ExportConfig(bundle_uri=bundle_uri, output_uri=str(folder)))
    return folder


@pytest.fixture(scope="module")
def signal_mv(bundle_uri):
    """Three ECGs as the encoder takes them, one of them with two leads alone."""
    predictor = load_predictor(bundle_uri)
    rows = [predictor.windows(synthetic_ecg(index)).signal_uv[0] for index in (1, 2, 3)]
    stacked = np.stack(rows).astype(np.float32) / 1000
    stacked[2, 2:] = 0
    return stacked


def test_the_folder_is_the_bundle_and_more(exported, bundle_uri):
    before, after = load_bundle(bundle_uri), load_bundle(str(exported))
    assert after.digest == before.digest
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert names == {
        *("bundle.json", "model.safetensors", "prompt_features.safetensors", "config.yaml", "config.json"),
        *("README.md", "ecg_encoder.onnx", "classes/mets.json", "classes/descriptive.json", "zero_shot.py"),
        "reference/inputs.json",
    }
    config = json.loads((exported / "config.json").read_text())
    assert config["bundle_digest"] == before.digest
    assert config["onnx"]["opset"] == onnx.load(exported / "ecg_encoder.onnx").opset_import[0].version == 18
    for name, sha256 in config["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == sha256


def test_onnx_gives_the_embeddings_and_scores_of_the_bundle(exported, bundle_uri, signal_mv):
    predictor, alone = load_predictor(bundle_uri, encoder_runtime="torch"), ZeroShot(exported)
    with torch.inference_mode():
        expected = predictor.bundle.model.embed_ecg(torch.from_numpy(signal_mv)).numpy()
    for count in (1, 3):
        np.testing.assert_allclose(alone.embed(signal_mv[:count]), expected[:count], atol=1e-5)
    classes = predictor.facts.prompt_sets["descriptive"].tasks["synthetic"]
    for multi_label in (False, True):
        wanted, _ = predictor.scores(expected, predictor.class_vectors(classes), multi_label=multi_label)
        names, scores = alone.scores(signal_mv, "descriptive", "synthetic", multi_label=multi_label)
        assert names == list(classes)
        np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_z_scores_are_those_of_answers_and_unknown_without_all_leads_or_a_reference(exported, bundle_uri, tmp_path):
    predictor, alone = load_predictor(bundle_uri, encoder_runtime="torch"), ZeroShot(exported)
    ecgs = [synthetic_ecg(index) for index in (1, 2)]
    signal_mv = np.concatenate([predictor.windows(ecg).signal_uv for ecg in ecgs]).astype(np.float32) / 1000
    names, z_scores = alone.z_scores(signal_mv, "descriptive", "synthetic")
    for ecg, row in zip(ecgs, z_scores, strict=True):
        answer = predictor.zero_shot(ecg, prompt_set="descriptive", task="synthetic")
        wanted = {found.class_name: found.z_score for found in answer}
        np.testing.assert_allclose(row, [wanted[name] for name in names], atol=1e-3)
    signal_mv[1, 2:] = 0
    _, fewer = alone.z_scores(signal_mv, "descriptive", "synthetic")
    np.testing.assert_array_equal(fewer[0], z_scores[0])
    assert np.isnan(fewer[1]).all()

    plain = tmp_path / "plain"
    shutil.copytree(bundle_uri, plain)
    shutil.rmtree(plain / "reference")
    export(ExportConfig(bundle_uri=str(plain), output_uri=str(tmp_path / "export")))
    _, unknown = ZeroShot(tmp_path / "export").z_scores(signal_mv, "descriptive", "synthetic")
    assert np.isnan(unknown).all()


def test_ecgs_without_a_signal_are_refused(exported, signal_mv):
    alone = ZeroShot(exported)
    with pytest.raises(ValueError, match="nothing was recorded"):
        alone.embed(np.concatenate([signal_mv[:1], np.zeros_like(signal_mv[:1])]))
    flat = signal_mv[:1].copy()
    flat[0, 3] = 0.123
    with pytest.raises(ValueError, match="all samples of a lead are equal"):
        alone.scores(flat, "descriptive", "synthetic")


def test_the_script_in_the_folder_needs_neither_torch_nor_this_package(exported, signal_mv, tmp_path):
    np.save(tmp_path / "ecg.npy", signal_mv[0])
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'mets_ray', 'ray', 'transformers'): sys.modules[name] = None\n"
        f"sys.argv = ['zero_shot.py', {str(tmp_path / 'ecg.npy')!r}, 'descriptive', 'synthetic']\n"
        f"runpy.run_path({str(exported / 'zero_shot.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PATH": ""}, check=True, capture_output=True, text=True
    )
    (row,) = json.loads(done.stdout)
    names, scores = ZeroShot(exported).scores(signal_mv[:1], "descriptive", "synthetic")
    _, z_scores = ZeroShot(exported).z_scores(signal_mv[:1], "descriptive", "synthetic")
    assert list(row) == names
    np.testing.assert_allclose([of["score"] for of in row.values()], scores[0], atol=1e-6)
    np.testing.assert_allclose([of["z_score"] for of in row.values()], z_scores[0], atol=1e-6)


def test_what_is_wrong_with_the_input_is_said(exported, signal_mv):
    alone = ZeroShot(exported)
    for wrong, words in (
        (signal_mv[:, :11], "shape"),
        (signal_mv * 1000, "microvolts"),
        (signal_mv * np.nan, "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            alone.embed(wrong)
    with pytest.raises(ValueError, match="descriptive synthetic"):
        alone.scores(signal_mv, "descriptive", "ptbxl_super")


def test_a_model_that_needs_every_lead_says_so(exported, signal_mv):
    alone = ZeroShot(exported)
    alone.config["ecg"]["takes_fewer_leads"] = False
    with pytest.raises(ValueError, match="needs every lead"):
        alone.embed(signal_mv)


@pytest.mark.parametrize("name", ["ecg_encoder.onnx", "classes/mets.json", "model.safetensors", "config.yaml"])
def test_a_file_that_is_missing_or_another_is_named(exported, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    ours = name in ("model.safetensors", "config.yaml")

    def read():
        return load_bundle(str(folder)) if ours else ZeroShot(folder)

    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(CheckpointError if ours else ValueError, match=f"`{name}`.*sha256"):
        read()
    (folder / name).unlink()
    with pytest.raises(CheckpointError if ours else FileNotFoundError, match=f"`{name}`.*missing"):
        read()


def test_a_folder_without_config_or_onnx_is_refused_by_the_script(exported, bundle_uri, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        ZeroShot(tmp_path)
    export(ExportConfig(bundle_uri=bundle_uri, output_uri=str(tmp_path / "small"), onnx=False))
    assert not (tmp_path / "small" / "ecg_encoder.onnx").exists()
    with pytest.raises(ValueError, match="onnx=true"):
        ZeroShot(tmp_path / "small")


def test_a_name_makes_a_bundle_that_tells_nothing_of_the_machine(bundle_uri, tmp_path, capsys):
    words = [f"bundle_uri={bundle_uri}", f"output_uri={tmp_path / 'named'}", "onnx=false"]
    run_export(words)
    told = capsys.readouterr()
    assert "dataset_uri=" in told.err
    assert len(json.loads(told.out)["local_paths"]) == 2
    for _ in range(2):  # an earlier export is replaced
        run_export([*words, "name=my-model"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["local_paths"] == []
    before, after = load_bundle(bundle_uri), load_bundle(result["output_uri"])
    assert result["model_version"] == f"my-model#{after.digest[:8]}"
    assert after.digest != before.digest
    for key, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[key], value)
    place = bundle_uri.rsplit("/", 2)[0].encode()
    assert [
        path.name for path in (tmp_path / "named").rglob("*") if path.is_file() and place in path.read_bytes()
    ] == []


def test_a_name_leaves_out_the_places_of_every_section(bundle_uri):
    """Also of sections that come later: each setting of a place is given one."""
    bundle = load_bundle(bundle_uri)
    words = ["prepare.source=ptbxl"]
    for key, field in [*settings_of(Config), *settings_of(source_class("ptbxl"), "prepare.source.")]:
        marks = (field.annotation, *field.metadata)
        if any("Place" in repr(mark) for mark in marks):
            words.append(
                f"{key}=[s3://st-mary/{key}]" if "tuple" in repr(field.annotation) else f"{key}=s3://st-mary/{key}"
            )
    assert len(words) > 15
    filled = replace(bundle, config=load_config(None, words))
    assert len(list(places(filled.config))) == len(words) - 1
    kept = {place.key for place in places(portable(filled, "my-model").config) if "st-mary" in place.uri}
    # These two are renamed where they are folders and files that the bundle knows, which nothing here is.
    assert kept <= {"text.model", "train.validation_prompt_set"}


def test_notes_in_another_encoding_are_refused_by_name(bundle_uri, tmp_path):
    (tmp_path / "notes.md").write_bytes("Grüße".encode("latin-1"))
    config = ExportConfig(bundle_uri=bundle_uri, output_uri=str(tmp_path / "out"), notes_uri=str(tmp_path / "notes.md"))
    with pytest.raises(ConfigError, match=r"`notes_uri` .* is not UTF-8"):
        export(config)
    assert not (tmp_path / "out").exists()


def test_what_lies_beside_a_bundle_and_its_heads_go_along(bundle_uri, tmp_path):
    measured = tmp_path / "measured"
    shutil.copytree(with_heads(bundle_uri, tmp_path, "linear"), measured)
    file = made_up_file(measured)
    known = {"synthetic": replace(file.tasks["synthetic"], cross_fitted=CROSS_FITTED)}
    write_file(measured, replace(file, tasks=known))
    write_reference(measured, made_up_reference(measured, synthetic_signals(range(60))))
    before = load_bundle(str(measured))
    for words in ({}, {"name": "renamed"}):
        output = str(tmp_path / f"out{len(words)}")
        export(ExportConfig(bundle_uri=str(measured), output_uri=output, onnx=False, **words))
        after = load_bundle(output)
        assert (after.digest == before.digest) is (not words)
        (file,) = after.calibrations.files
        assert (file.run, file.bundle_digest) == (after.facts.run, after.digest)
        assert file.tasks == before.calibrations.files[0].tasks
        assert after.reference.run == after.facts.run
        assert after.reference.reference.features == before.reference.reference.features
        card = (tmp_path / f"out{len(words)}" / "README.md").read_text()
        assert "| `descriptive:synthetic@5` | 11 of 12 | 300 ECGs of 150 patients | 0.250 → 0.025 | – → 0.100 |" in card
        assert "not probabilities: they are not calibrated" not in card
        assert (
            "| `linear` | synthetic (3 classes) | linear | 20 ECGs of 19 patients of synthetic (SYNTHETIC) | 0.9"
            in card
        )
        assert list(after.heads) == ["linear"]


def test_the_card_has_the_hub_s_header_and_only_what_is_known(exported, bundle_uri, tmp_path):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mets_ray\nlicense: other\n")
    assert "- onnx\n---\n" in card
    assert "SYNTHETIC" in card
    assert "None were given for this export" in card
    assert "\n\nScores are not probabilities: they are not calibrated.\n\n## What it is for" in card
    (tmp_path / "figures.json").write_text(
        json.dumps({"default": {"tasks": {"ptbxl_super": [0.9, 0.8806, 0.92], "mean": [0.85, 0.84, 0.86]}}})
    )
    (tmp_path / "notes.md").write_text("## Examples\n\nEight of them.\n")
    config = ExportConfig(
        bundle_uri=bundle_uri,
        output_uri=str(tmp_path / "out"),
        onnx=False,
        figures_uri=str(tmp_path / "figures.json"),
        notes_uri=str(tmp_path / "notes.md"),
    )
    export(config)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| ptbxl_super | 0.900 [0.881, 0.920] |\n| mean | 0.850 [0.840, 0.860] |\n" in card
    assert card.endswith("## Examples\n\nEight of them.\n")
    assert "zero_shot.py" not in card


def test_what_cannot_be_exported_is_refused_before_anything_is_written(bundle_uri, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    mine, output = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    (mine / "figures.json").write_text("{}")
    given = {"bundle_uri": bundle_uri, "output_uri": str(output), "onnx": False}
    for change, words in (
        ({"output_uri": str(mine)}, "no earlier export"),
        ({"figures_uri": str(mine / "figures.json")}, "no cross-validated figures"),
        ({"push_to_hub": "user/name"}, "HF_TOKEN is not"),
    ):
        with pytest.raises(ConfigError, match=words):
            export(ExportConfig(**(given | change)))
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(ConfigError, match="names paths of the machine"):
        export(ExportConfig(**given, push_to_hub="user/name"))
    assert not output.exists()
    assert (mine / "thesis.txt").read_text() == "years"
    with pytest.raises(ConfigError, match="did you mean `output_uri`"):
        read_flat(ExportConfig, {}, ["bundle_uri=x", "output_uri=y", "output=z"])
    with pytest.raises(SystemExit) as ended:
        run_export([f"bundle_uri={tmp_path}", f"output_uri={output}"])
    assert ended.value.code == 1
    assert "contains none" in json.loads(capsys.readouterr().out)["error"]
