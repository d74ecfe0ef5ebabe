"""Real DICOM ECGs beside pydicom's and ecgdatakit's values, and small ones that pydicom writes."""

import io
import logging

import numpy as np
import pydicom
import pytest
from ecgdatakit.parsing.parsers.dicom_waveform import DICOMWaveformParser
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.formats.dicom import read, recognises
from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage

STORED = np.random.default_rng(0).integers(-2000, 2000, (3, 1000)).astype(np.int16)


def code(value, meaning="", scheme="UCUM"):
    item = Dataset()
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = value, meaning, scheme
    return Items([item])


def channel(source="2:1", unit="uV", **changes):
    item = Dataset()
    item.ChannelSourceSequence = code(source, changes.pop("meaning", ""), "MDC")
    if unit is not None:
        item.ChannelSensitivity, item.ChannelSensitivityUnitsSequence = "2.5", code(unit)
        item.ChannelSensitivityCorrectionFactor, item.ChannelBaseline, item.ChannelSampleSkew = "1", "0", "0"
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


def group(stored=STORED, channels=None, dtype="<i2", **changes):
    item = Dataset()
    item.WaveformOriginality, item.MultiplexGroupLabel = "ORIGINAL", "RHYTHM"
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = stored.shape
    item.SamplingFrequency, item.WaveformBitsAllocated, item.WaveformSampleInterpretation = "500", 16, "SS"
    item.ChannelDefinitionSequence = Items(channels or [channel(f"2:{number + 1}") for number in range(len(stored))])
    item.WaveformData = stored.T.astype(dtype).tobytes()
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


def written(groups, syntax=pydicom.uid.ExplicitVRLittleEndian, **changes):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = pydicom.uid.TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, bytes(128), meta, syntax.is_implicit_VR, syntax.is_little_endian)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.WaveformSequence = Items(groups)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def refused(data, reason):
    with pytest.raises(RecordError) as caught:
        read(data)
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "rate"),
    [("pydicom_waveform_ecg", (12, 10000), 1000.0), ("ecgtoolkit_Example", (12, 5000), 500.0)],
)
def test_real_files(data_folder, name, shape, rate):
    """The rhythm and not the median beat; µV as pydicom and ecgdatakit have them."""
    path = data_folder / "formats" / "dicom" / f"{name}.dcm"
    data = path.read_bytes()
    assert recognises(data[:4096])
    ecg = read(data)
    assert (ecg.signal_mv.shape, ecg.leads, ecg.sampling_rate_hz) == (shape, LEADS, rate)
    theirs = pydicom.dcmread(path).waveform_array(0).T / 1000
    there = ~np.isnan(ecg.signal_mv)
    np.testing.assert_allclose(ecg.signal_mv[there], theirs[there], rtol=1e-12)
    for row, lead in zip(ecg.signal_mv, DICOMWaveformParser().parse(path).leads, strict=True):
        np.testing.assert_allclose(row * 1000, lead.samples * lead.resolution + lead.offset, rtol=1e-12)


def test_what_a_real_file_says(data_folder):
    meta = read((data_folder / "formats/dicom/pydicom_waveform_ecg.dcm").read_bytes()).meta
    assert meta.statements == ("RITMO SINUSALE", "ECG NORMALE")
    assert (meta.age, meta.sex, meta.device) == (42.0, "female", "Mortara Instrument, Inc. el250")
    assert (meta.recorded_at, meta.patient_id) == ("2013-01-25T10:59:19", "642341")
    assert (meta.highpass_hz, meta.lowpass_hz, meta.notch_hz) == (0.05, 300.0, None)


def test_padding_is_no_sample(data_folder):
    """The padding value of this file is 0; zeros would be taken for a flat stretch."""
    ecg = read((data_folder / "formats/dicom/ecgtoolkit_Example.dcm").read_bytes())
    assert np.isnan(ecg.signal_mv[0]).sum() == 131
    assert not (ecg.signal_mv == 0).any()


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_transfer_syntaxes(syntax):
    uid = getattr(pydicom.uid, syntax)
    ecg = read(written([group(dtype="<i2" if uid.is_little_endian else ">i2")], uid))
    np.testing.assert_allclose(ecg.signal_mv, STORED * 2.5 / 1000, rtol=1e-12)
    assert ecg.leads == ("I", "II", "V1")


@pytest.mark.parametrize("kind", ["OB", "OW"])
@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ExplicitVRBigEndian", "ImplicitVRLittleEndian"])
def test_samples_of_8_bits_in_words(kind, syntax):
    """The words of a big-endian file are swapped, also where each holds two samples."""
    uid = getattr(pydicom.uid, syntax)
    stored = np.random.default_rng(0).integers(-100, 100, (3, 1000)).astype(np.int8)
    stored[0, :7] = -128
    swapped = kind == "OW" and not uid.is_little_endian
    one = group(stored, dtype="i1", WaveformBitsAllocated=8, WaveformSampleInterpretation="SB")
    raw, padding = stored.T.tobytes(), b"\x80\0"
    if swapped:
        raw, padding = np.frombuffer(raw, "u2").byteswap().tobytes(), padding[::-1]
    one.add_new("WaveformData", kind, raw)
    one.add_new("WaveformPaddingValue", kind, padding)
    ecg = read(written([one], uid))
    assert np.isnan(ecg.signal_mv).sum() == np.isnan(ecg.signal_mv[0, :7]).sum() == 7
    np.testing.assert_allclose(ecg.signal_mv[:, 7:], stored[:, 7:] * 2.5 / 1000, rtol=1e-12)


def test_a_second_recording_of_the_same_leads_is_named():
    later = group(STORED + 1, MultiplexGroupTimeOffset="5000")
    ecg = read(written([group(), group(MultiplexGroupLabel="MEDIAN BEAT", WaveformOriginality="DERIVED"), later]))
    np.testing.assert_allclose(ecg.signal_mv, STORED * 2.5 / 1000, rtol=1e-12)
    assert ecg.other_signals == ("waveform 3",)


def test_small_bomb_is_not_unpacked():
    data = written([group(np.zeros((3, 4_000_000), np.int16))], pydicom.uid.DeflatedExplicitVRLittleEndian)
    assert len(data) < 100_000
    refused(data, "too_large")


def test_scales_units_and_baselines():
    channels = [
        channel("2:1", "mV", ChannelSensitivity="0.005"),
        channel("2:2", "uV", ChannelSensitivityCorrectionFactor="2", ChannelBaseline="100"),
        channel("2:61", "nV", ChannelSensitivity="1000"),
    ]
    ecg = read(written([group(channels=channels)]))
    expected = [STORED[0] * 0.005, (STORED[1] * 5 + 100) / 1000, STORED[2] / 1000]
    np.testing.assert_allclose(ecg.signal_mv, expected, rtol=1e-12)
    assert ecg.leads == ("I", "II", "III")


@pytest.mark.parametrize(
    ("source", "meaning", "lead"),
    [
        ("5.6.3-9-62", "Lead whatever", "aVR"),
        ("2:64", "", "aVF"),
        ("MDC_ECG_LEAD_AVL", "", "aVL"),
        ("X1", "Lead V3 (chest)", "V3"),
        ("X1", "II, standard", "II"),
        ("2:0", "Unspecified lead", "V2"),
        ("2:24", "Frank Lead I", "Frank Lead I"),
        ("2:31", "Derived Lead I", "Derived Lead I"),
        ("5.6.3-9-31", "Lead I", "ECG lead of code 5.6.3-9-31"),
        ("2:31", "", "ECG lead of code 2:31"),
    ],
)
def test_lead_names(source, meaning, lead):
    """The code comes first: a lead that it says is another one is not what a label calls it."""
    channels = [channel(source, meaning=meaning, ChannelLabel="V2")]
    assert read(written([group(STORED[:1], channels)])).leads == (lead,)
    assert standard_lead(lead) in (lead, None)


def test_other_signals_are_named():
    channels = [channel("2:1"), channel("2:2"), channel("X", "mmHg", meaning="ABP")]
    ecg = read(written([group(channels=channels)]))
    assert (ecg.leads, ecg.other_signals) == (("I", "II"), ("ABP",))


def test_leads_twice():
    """A strip below the 12 leads is left out; in one group a lead stands twice, for `preprocess` to refuse."""
    strip = group(STORED[:1, :500], [channel("2:2")], MultiplexGroupLabel="RHYTHM STRIP")
    pulse = group(STORED[:1], [channel("X", "mmHg", meaning="ABP")], SamplingFrequency="100")
    ecg = read(written([strip, pulse, group()]))
    assert (ecg.leads, ecg.signal_mv.shape, ecg.other_signals) == (("I", "II", "V1"), (3, 1000), ("ABP",))
    assert read(written([group(STORED[:2], [channel("2:1")] * 2)])).leads == ("I", "I")


def test_leads_one_group_after_another():
    """As on paper: 3 leads for 2 s each, on one time line, with NaN where a lead is not recorded."""
    groups = [
        group(
            STORED,
            [channel(f"2:{number}") for number in numbers],
            MultiplexGroupTimeOffset=str(2000 * place),
            MultiplexGroupLabel=f"LEADS {place}",
        )
        for place, numbers in enumerate(((1, 2, 61), (62, 63, 64)))
    ]
    ecg = read(written(groups))
    assert ecg.leads == ("I", "II", "III", "aVR", "aVL", "aVF")
    assert ecg.signal_mv.shape == (6, 2000)
    assert np.isnan(ecg.signal_mv[:3, 1000:]).all()
    assert np.isnan(ecg.signal_mv[3:, :1000]).all()
    np.testing.assert_allclose(ecg.signal_mv[3:, 1000:], STORED * 2.5 / 1000, rtol=1e-12)


def test_skew_moves_a_lead():
    channels = [channel("2:1"), channel("2:2", ChannelSampleSkew="2")]
    ecg = read(written([group(STORED[:2], channels)]))
    assert ecg.signal_mv.shape == (2, 1002)
    assert np.isnan(ecg.signal_mv[0, -2:]).all()
    np.testing.assert_allclose(ecg.signal_mv[1, 2:], STORED[1] * 2.5 / 1000, rtol=1e-12)


def test_beats_beside_and_alone():
    beat = group(STORED[:, :300], MultiplexGroupLabel="MEDIAN BEAT", WaveformOriginality="DERIVED")
    assert read(written([beat, group()])).signal_mv.shape == (3, 1000)
    refused(written([beat]), "no_ecg_lead")
    # A filtered rhythm is derived as well, and all there is.
    assert read(written([group(WaveformOriginality="DERIVED")])).signal_mv.shape == (3, 1000)


def test_statements_are_what_stands_for_the_whole():
    def annotation(**values):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return item

    annotations = [
        annotation(UnformattedTextValue="Sinus bradycardia\r\nOtherwise normal"),
        annotation(UnformattedTextValue="QRS", ReferencedSamplePositions=[10]),
        annotation(ConceptNameCodeSequence=code("1", "QT Interval"), NumericValue="400"),
        annotation(ConceptNameCodeSequence=code("1", "Atrial flutter", "MDC")),
    ]
    data = written(
        [group()],
        WaveformAnnotationSequence=Items(annotations),
        LanguageCodeSequence=code("en-US", "English", "RFC5646"),
        PatientAge="018M",
        AcquisitionDateTime="20200229123015.25+0130",
    )
    meta = read(data).meta
    assert meta.statements == ("Sinus bradycardia", "Otherwise normal", "Atrial flutter")
    assert (meta.language, meta.age, meta.recorded_at) == ("en-US", 1.5, "2020-02-29T12:30:15+01:30")


def test_refusals():
    assert not recognises(bytes(132))
    refused(written([group(channels=[channel(f"2:{n}", None) for n in (1, 2, 3)])]), "missing_unit")
    refused(written([group(channels=[channel(f"2:{n}", "mmHg") for n in (1, 2, 3)])]), "unknown_unit")
    refused(written([group(NumberOfWaveformSamples=1001)]), "truncated_file")
    refused(written([group(NumberOfWaveformSamples=2_000_000_000)]), "too_large")
    refused(written([group(SamplingFrequency="1")]), "implausible_sampling_rate")
    refused(written([group(WaveformSampleInterpretation="MB", WaveformBitsAllocated=8)]), "unsupported_format")
    refused(written([group(channels=[channel("X", meaning=name) for name in ("RESP", "ABP", "CVP")])]), "no_ecg_lead")
    refused(written([group(), group(channels=[channel("2:4")] * 3, SamplingFrequency="250")]), "unsupported_format")
    refused(written([group(MultiplexGroupTimeOffset="1"), group(channels=[channel(f"2:{n}") for n in (4, 5, 6)],
            MultiplexGroupTimeOffset="9e9")]), "too_large")  # fmt: skip
    refused(bytes(128) + b"DICM" + bytes(500), "no_ecg_lead")


def test_says_no_name(caplog, recwarn):
    """pydicom would print an id that breaks DICOM's rules."""
    data = written([group()]).replace(b"1.2.3\0", b"Doe..J")
    with caplog.at_level(logging.DEBUG):
        assert read(data).meta.record_id == "Doe..J"
    assert "Doe" not in caplog.text
    assert not any("Doe" in str(warning.message) for warning in recwarn)


def test_damage_is_refused():
    assert refuses_damage(read, written([group(STORED[:, :200])]), 60)["unreadable_file"]
