"""The one door: a file is what its content says, whatever its name."""

import contextlib
import sys
import zipfile

import numpy as np
import pytest

import mets_ray
from mets_ray.ecg import formats
from mets_ray.ecg.formats import limits
from mets_ray.ecg.formats.library import library
from mets_ray.ecg.formats.temporary import as_file
from mets_ray.errors import DatasetError, RecordError
from tests.support.wfdb_records import write_record
from tests.support.xml_ecgs import aecg, muse, sequence_set
from tests.support.zips import zipped

MUSE = muse({"I": [1, 2, 3], "II": [4, 5, 6]})

READ = {  # format and shape of the real files
    "dicom/ecgtoolkit_Example.dcm": ("dicom", (12, 5000)),
    "dicom/pydicom_waveform_ecg.dcm": ("dicom", (12, 10_000)),
    "hl7_aecg/fda_minimum_aecg.xml": ("aecg", (1, 13)),
    "hl7_aecg/fda_subject1_0.xml": ("aecg", (12, 5000)),
    "hl7_aecg/liryc_hl7aecg_example.xml": ("aecg", (12, 1000)),
    "muse_xml/braveheart_example1.xml": ("muse", (8, 5000)),
    "muse_xml/braveheart_example2.xml": ("muse", (8, 5000)),
    "philips_sierra_xml/1_03_129DYPRG.XML": ("sierra", (12, 5500)),
    "philips_sierra_xml/1_03_repbeats_example.xml": ("sierra", (12, 5500)),
    "philips_sierra_xml/1_04_ad4d3d80.xml": ("sierra", (12, 5500)),
    "scp/ecgtoolkit_Example.scp": ("scp", (12, 5000)),
}


def refused(reason, source, **stated):
    with pytest.raises(RecordError) as caught:
        mets_ray.read_ecg(source, **stated)
    assert caught.value.reason == reason, caught.value
    return caught.value


@pytest.mark.parametrize("name", READ)
def test_real_files_are_read_by_path_and_by_content(data_folder, tmp_path, name):
    path = data_folder / "formats" / name
    misnamed = tmp_path / "record.csv"
    misnamed.write_bytes(path.read_bytes())
    for source in (str(path), path.read_bytes(), misnamed):
        ecg = mets_ray.read_ecg(source)
        assert (ecg.meta.format, ecg.signal_mv.shape) == READ[name]


@pytest.mark.parametrize("name", ["edfio_short_psg.edf", "edfio_short_psg.bdf", "wfdb_test_edfann.edf"])
def test_files_without_an_ecg_lead_are_refused(data_folder, name):
    refused("no_ecg_lead", data_folder / "formats" / "edf" / name)


def test_text_without_a_header_takes_what_is_stated(data_folder):
    path = data_folder / "formats" / "text" / "tereshchenko_testing_ecg.txt"
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    ecg = mets_ray.read_ecg(path, sampling_rate_hz=500, unit="uV", leads=leads)
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.signal_mv.shape) == (tuple(leads), 500, (12, 5000))
    refused("missing_unit", path, sampling_rate_hz=500, leads=leads)
    refused("missing_sampling_rate", path, unit="uV", leads=leads)
    refused("missing_lead_names", path, sampling_rate_hz=500, unit="uV")


def test_a_record_is_found_with_and_without_its_ending_and_beside_a_folder(tmp_path):
    record = write_record(tmp_path)
    (tmp_path / record.rpartition("/")[2]).mkdir()
    expected = mets_ray.read_ecg(f"{record}.hea")
    assert np.array_equal(mets_ray.read_ecg(record).signal_mv, expected.signal_mv)
    error = refused("unsupported_format", f"{record}.dat")
    assert ".hea" in error.hint
    error = refused("missing_file", tmp_path / "nothing.xml")
    assert f"`{tmp_path}/nothing.xml` does not exist, and neither does `{tmp_path}/nothing.xml.hea`" in str(error)
    assert "the path of one ECG's file" in error.hint
    assert f"`{tmp_path}` is not a file, and there is no `{tmp_path}.hea`" in str(refused("not_a_file", tmp_path))
    with pytest.raises(DatasetError, match="a part of its path is a file"):
        mets_ray.read_ecg(f"{record}.dat/nothing.xml")


def test_one_file_may_come_in_a_zip():
    assert mets_ray.read_ecg(zipped({"folder/any.name": MUSE})).meta.format == "muse"
    refused("unsupported_format", zipped({"a.xml": MUSE, "b.xml": MUSE}))
    refused("unsupported_format", zipped({"a.zip": zipped({"a.xml": MUSE})}))


def test_a_refusal_names_the_file_and_what_can_be_read(tmp_path):
    path = tmp_path / "letter.xml"
    path.write_bytes(b"<letter/>")
    error = refused("unsupported_format", path)
    assert error.where == str(path)
    for one in formats.FORMATS:
        assert one.title in error.hint
    assert str(tmp_path / "a.xml") in str(
        refused("missing_unit", _written(tmp_path, aecg(sequence_set({"MDC_ECG_LEAD_I": [1]}, unit=""))))
    )


def _written(folder, data):
    path = folder / "a.xml"
    path.write_bytes(data)
    return path


def test_each_format_has_a_module_that_knows_its_own_files_only():
    heads = {"aecg": aecg(), "muse": MUSE}
    for one in formats.FORMATS:
        assert one.name == one.module.FORMAT
        assert not one.module.recognises(b"")
        assert not one.module.recognises(bytes(4096))
        assert one.module.recognises(heads.get(one.name, b"")) == (one.name in heads)


def test_files_that_are_too_large_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = _written(tmp_path, MUSE)
    monkeypatch.setattr("mets_ray.ecg.read.MAX_BYTES", 100)
    refused("too_large", path)
    monkeypatch.setattr(limits, "MAX_BYTES", 100)
    refused("too_large", MUSE)
    for num_signals, num_samples, size in ((12, 10**9, 10**6), (2, limits.MAX_SAMPLES, 2**40)):
        with pytest.raises(RecordError) as caught:
            limits.check_samples(num_signals, num_samples, size)
        assert caught.value.reason == "too_large"


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(RecordError) as caught:
        library("pydicom")
    assert (caught.value.reason, caught.value.hint) == ("missing_library", "pip install 'mets-ray[clinical]'")


def test_a_temporary_file_is_gone_whatever_happens(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with as_file(b"abc", ".edf") as path:
        assert (path.read_bytes(), path.suffix) == (b"abc", ".edf")
    with pytest.raises(KeyError), as_file(b"abc", "") as path:
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_zip_keep_their_folders():
    header = "r 2 500 100\nr.dat 16 1000 16 0\nr.dat 16 1000 16 0\n"
    one, other = (np.full((100, 2), value, "<i2").tobytes() for value in (111, 222))
    beside = zipped({"a/r.hea": header, "a/r.dat": one, "old/r.dat": other})
    np.testing.assert_allclose(mets_ray.read_ecg(beside).signal_mv, 0.111)
    refused("unsupported_format", zipped({"a/r.hea": header, "a/r.dat": one, "b/r.hea": header, "b/r.dat": other}))
    refused("missing_file", zipped({"a/r.hea": header, "b/r.dat": other}))
    np.testing.assert_allclose(mets_ray.read_ecg(zipped({"r.hea": header, "r.dat": one, ".": b"x"})).signal_mv, 0.111)


def test_damaged_zips_are_refused():
    record = {"r.hea": "r 1 500 100\nr.dat 16 1000 16 0\n", "r.dat": np.arange(100, dtype="<i2").tobytes()}
    rng = np.random.default_rng(0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        whole = zipped(record, method)
        for _ in range(100):
            data = bytearray(whole)
            start = int(rng.integers(0, len(data)))
            if rng.random() < 0.5:
                del data[start : start + int(rng.integers(1, 100))]
            else:
                data[start] ^= int(rng.integers(1, 256))
            with contextlib.suppress(RecordError):  # and nothing else is raised
                mets_ray.read_ecg(bytes(data))
    refused("unsupported_format", zipped(record, zipfile.ZIP_LZMA))


@pytest.mark.parametrize("step", ["1e-320", "-2000", "1e-5", "inf", "1e300"])
def test_an_aecg_at_an_impossible_rate_is_refused(step):
    data = aecg(sequence_set({"MDC_ECG_LEAD_I": [1, 2]}, step=f'value="{step}" unit="us"'))
    assert refused_with(data) in ("implausible_sampling_rate", "missing_sampling_rate")


def refused_with(data):
    with pytest.raises(RecordError) as caught:
        mets_ray.read_ecg(data)
    return caught.value.reason
