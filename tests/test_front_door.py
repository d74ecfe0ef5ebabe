"""`import mets_ray`: what a person finds there, and that it costs nothing until it is used."""

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import mets_ray
from tests.conftest import ROOT
from tests.support.serving import make_bundle, synthetic_ecg
from tests.support.wfdb_records import write_record


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    return str(make_bundle(tmp_path_factory.mktemp("front")))


def test_all_is_what_there_is():
    assert mets_ray.__all__ == [
        "CheckpointError",
        "ConfigError",
        "DatasetError",
        "Ecg",
        "MetsError",
        "RecordError",
        "RequestError",
        "__version__",
        "load_bundle",
        "open_archive",
        "read_ecg",
    ]
    for name in mets_ray.__all__:
        assert getattr(mets_ray, name) is not None
    assert set(mets_ray.__all__) <= set(dir(mets_ray))
    with pytest.raises(AttributeError, match="load_bundel"):
        _ = mets_ray.load_bundel


@pytest.mark.parametrize(
    ("use", "absent"),
    [
        ("mets_ray.__version__", ("torch", "ray", "transformers", "numpy")),
        ("mets_ray.read_ecg", ("torch", "ray", "transformers")),
        ("mets_ray.load_bundle", ("ray", "transformers")),
    ],
)
def test_nothing_is_loaded_before_it_is_used(use, absent):
    code = f"import sys, mets_ray; {use}; sys.exit(repr({set(absent)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("folder", ["folder/", "my\\ecgs\\", ""])
def test_an_ecg_is_read_from_a_path_a_header_or_the_bytes_of_a_zip(tmp_path, folder):
    record = write_record(tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(folder or "empty/", b"")
        for path in tmp_path.iterdir():
            archive.write(path, f"{folder}{path.name}")
            archive.writestr(f"__MACOSX/{folder}._{path.name}", b"macOS")
    zip_path = tmp_path / "record.zip"
    zip_path.write_bytes(packed.getvalue())
    expected = mets_ray.read_ecg(record)
    assert isinstance(expected, mets_ray.Ecg)
    for source in (f"{record}.hea", tmp_path / record.rpartition("/")[2], zip_path, packed.getvalue()):
        found = mets_ray.read_ecg(source)
        assert np.array_equal(found.signal_mv, expected.signal_mv)
        assert (found.leads, found.sampling_rate_hz) == (expected.leads, expected.sampling_rate_hz)


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_bytes_that_are_no_ecg_are_refused_with_a_reason(data):
    with pytest.raises(mets_ray.RecordError) as caught:
        mets_ray.read_ecg(data)
    assert caught.value.reason == "unsupported_format"
    assert "ZIP" in caught.value.hint


def test_a_bundle_answers_for_words_that_it_never_saw(bundle_uri):
    predictor = mets_ray.load_bundle(bundle_uri)
    rows = predictor.zero_shot(synthetic_ecg(1), ["atrial fibrillation", "sinus rhythm", "a word of my own"])
    assert sorted(row.class_name for row in rows) == ["a word of my own", "atrial fibrillation", "sinus rhythm"]
    assert [row.similarity for row in rows] == sorted((row.similarity for row in rows), reverse=True)
    assert sum(row.score for row in rows) == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(predictor.embed(synthetic_ecg(1))) == pytest.approx(1.0, abs=1e-5)
    assert predictor.facts.leads[0] == "I"


def test_a_bundle_that_is_none_is_refused(tmp_path):
    with pytest.raises(mets_ray.CheckpointError, match=r"bundle\.json"):
        mets_ray.load_bundle(str(tmp_path))
