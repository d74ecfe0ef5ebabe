"""Where evaluate leaves its calibration: beside the bundle, where the settings say, or in the result's folder."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mets_ray import bundles, storage
from mets_ray.config.load import load_config
from mets_ray.evaluation.calibrate import write_calibrations
from mets_ray.model.bundle import load_bundle
from mets_ray.model.calibrations import CalibrationFile
from mets_ray.model.predictor import Predictor
from mets_ray.tasks.questions import Questions
from tests.support.calibrations import damage, made_up_file, write_file
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "run" / "bundle")


def inputs_of(bundle, *words):
    """What `write_calibrations` looks at: settings, data set, bundle and questions."""
    card = SimpleNamespace(source="synthetic", content_sha256="d", synthetic=True)
    return SimpleNamespace(
        config=load_config(None, ["folds.validation=[9]", *words]),
        dataset=SimpleNamespace(card=card),
        predictor=Predictor(load_bundle(str(bundle)), encoder_runtime="torch"),
        questions=Questions.read("descriptive", "synthetic"),
        embedded=SimpleNamespace(bundle={"folds.validation": SimpleNamespace(record_ids=range(310))}),
        bundle_uri=str(bundle),
    )


@pytest.fixture(scope="module")
def file(bare):
    return made_up_file(bare)


def fitted(file):
    return {"synthetic": SimpleNamespace(calibration=file.tasks["synthetic"].calibration)}


def read(uri):
    return CalibrationFile.from_bytes(storage.read_bytes(uri), uri)


def test_the_file_lies_beside_the_bundle_and_keeps_other_tasks(bundle, file, tmp_path):
    inputs, result_uri = inputs_of(bundle), str(tmp_path / "result")
    assert write_calibrations(inputs, {}, result_uri) == ("", ())
    uri, notices = write_calibrations(inputs, fitted(file), result_uri)
    assert (uri, notices) == (f"{bundle}/calibration/descriptive@5.json", ())
    assert read(uri) == file
    both = replace(file, tasks={"another": file.tasks["synthetic"], **file.tasks})
    for before, tasks in (
        (both, ["another", "synthetic"]),
        (replace(both, prompts=replace(both.prompts, sha256="other words")), ["synthetic"]),
        (replace(both, bundle_digest="of a bundle before it"), ["synthetic"]),
    ):
        path = write_file(bundle, before)
        assert write_calibrations(inputs, fitted(file), result_uri) == (uri, ())
        assert list(read(uri).tasks) == tasks
        assert read(uri).bundle_digest == file.bundle_digest
    damage(path)
    assert write_calibrations(inputs, fitted(file), result_uri) == (uri, ())
    assert read(uri) == file
    assert not (tmp_path / "result").exists()


def test_the_file_goes_where_the_settings_say_or_to_the_result(bundle, bare, file, tmp_path, monkeypatch):
    named = tmp_path / "named"
    inputs = inputs_of(bundle, f"evaluate.calibration_uri={named}")
    uri, notices = write_calibrations(inputs, fitted(file), str(tmp_path / "result"))
    assert (uri, notices) == (f"{named}/descriptive@5.json", ())
    # That folder now has the calibration of `bundle`; one of another bundle does not take its place.
    other = make_bundle(tmp_path, run="pretrain-20260101-000000-other", seed=1)
    words = inputs_of(other, f"evaluate.calibration_uri={named}")
    uri, (notice,) = write_calibrations(words, fitted(file), str(tmp_path / "result"))
    assert uri == f"{tmp_path}/result/calibration/descriptive@5.json"
    assert "is the calibration of another bundle, `pretrain-20260101-000000-test`" in notice
    assert "calibration_uri" in notice
    # What cannot be written to: a hub, a name, a file in the place of the folder, and what belongs to the package.
    (bundle / "calibration").write_text("in the way")
    inputs = inputs_of(bundle)
    for bundle_uri, words in (
        ("hf://user/name", "read only"),
        ("ptbxl-demo", "no folder that can be written to"),
        (str(bundle), "cannot be used"),
        (str(bare), "part of the package"),
        (bare.name, "part of the package"),
    ):
        if "package" in words:
            monkeypatch.setattr(bundles, "PACKAGED_FOLDER", bare.parent)
        inputs.bundle_uri = bundle_uri
        uri, (notice,) = write_calibrations(inputs, fitted(file), str(tmp_path / words))
        assert uri.startswith(f"{tmp_path}/{words}/calibration")
        assert words in notice
    assert not (bare / "calibration").exists()
