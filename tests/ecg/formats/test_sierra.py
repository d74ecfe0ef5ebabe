"""Philips Sierra XML: real files beside ecgdatakit's values, and small ones for each encoding of the schema."""

import base64

import numpy as np
import pytest
from ecgdatakit.parsing.parsers.sierra_xml import SierraXMLParser

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.formats.sierra import read, recognises
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage
from tests.support.xml_ecgs import sierra, xli

NAMES = ["1_03_129DYPRG.XML", "1_03_repbeats_example.xml", "1_04_ad4d3d80.xml"]
STORED = np.random.default_rng(0).integers(-300, 300, (12, 40))
FACTS = {
    "dataencoding": "Base64",
    "numberofleads": 12,
    "leadlabels": " ".join(LEADS),
    "durationperchannel": 80,
    "samplespersecond": 500,
    "resolution": 5,
    "signalsigned": "True",
    "bitspersample": 16,
    "hipass": 0.05,
    "lowpass": 150,
    "notchfiltered": "True",
    "notchfilterfreqs": "50 100",
}
BYTES = base64.b64encode(STORED.astype("<i2").tobytes()).decode()
OLD = {"samplingrate": 500, "signalresolution": 2.5, "signalbandwidth": "0.15-100", "acquisitiontype": "STD-12"}
OLD |= {"bitspersample": 16, "signaloffset": 100, "signalsigned": "True", "numberchannelsallocated": 12}
OLD_FACTS = {"compressflag": "False", "compressmethod": "Uncompressed", "dataencoding": "Base64"}
OLD_FACTS |= {"durationperchannel": 80, "nbitspersample": 16}


@pytest.mark.parametrize("name", NAMES)
def test_real_files_have_the_values_of_another_program(data_folder, name):
    path = data_folder / "formats" / "philips_sierra_xml" / name
    ecg, theirs = read(path.read_bytes()), SierraXMLParser().parse(path)
    assert recognises(path.read_bytes()[:4096])
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.signal_mv.shape) == (LEADS, 500.0, (12, 5500))
    values = np.array([lead.samples * lead.resolution for lead in theirs.leads])
    differences = np.abs(ecg.signal_mv * 1000 - values)[:, :5200]
    augmented = [LEADS.index(lead) for lead in ("aVR", "aVL", "aVF")]
    assert np.delete(differences, augmented, axis=0).max() < 1e-9
    # One step of 5 µV where ecgdatakit rounds down and Philips towards zero; the next test says who is right.
    assert set(np.unique(differences[augmented].round(6))) <= {0.0, 5.0}


def test_the_augmented_leads_of_a_real_file_add_up_to_zero(data_folder):
    path = data_folder / "formats" / "philips_sierra_xml" / "1_04_ad4d3d80.xml"
    steps = read(path.read_bytes()).signal_mv[:, :5200] * 200  # of 5 µV
    sums = steps[3:6].sum(axis=0)
    assert abs(sums.mean()) < 0.02
    assert np.abs(sums).max() <= 1 + 1e-9
    theirs = np.array([lead.samples for lead in SierraXMLParser().parse(path).leads])[3:6, :5200].sum(axis=0)
    assert theirs.mean() < -0.2


def test_the_calibration_mark_at_the_end_is_no_ecg(data_folder):
    path = data_folder / "formats" / "philips_sierra_xml" / "1_04_ad4d3d80.xml"
    ecg = read(path.read_bytes())
    assert np.isfinite(ecg.signal_mv[:, :5300]).all()
    assert np.isnan(ecg.signal_mv[:, 5300:]).all()
    flat = np.zeros((12, 40))
    assert np.isfinite(
        read(
            sierra(" ".join(map(str, flat.astype(int).ravel())), attributes=FACTS | {"dataencoding": "Plain"})
        ).signal_mv
    ).all(), "zeros without a mark are what was recorded"


def test_what_a_real_file_says_beside_its_signal(data_folder):
    folder = data_folder / "formats" / "philips_sierra_xml"
    meta = read((folder / "1_04_ad4d3d80.xml").read_bytes()).meta
    assert meta.statements == (
        "SINUS BRADYCARDIA",
        "NO PREVIOUS TRACING AVAILABLE FOR COMPARISON",
        "OTHERWISE NORMAL ECG",
    )
    assert (meta.language, meta.age, meta.sex) == ("en", 32.0, "female")
    assert meta.device == "Philips Medical Products PageWriter Touch"
    assert (meta.recorded_at, meta.highpass_hz, meta.lowpass_hz) == ("2008-12-23T19:44:46", 0.05, 150.0)
    assert read((folder / "1_03_129DYPRG.XML").read_bytes()).meta.age == 50.0


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("Base64", BYTES),
        ("Hex", STORED.astype("<i2").tobytes().hex()),
        ("Plain", " ".join(map(str, STORED.ravel()))),
    ],
)
@pytest.mark.parametrize("written", ["utf-8", "utf-16"])
def test_all_encodings_of_the_schema(encoding, text, written):
    ecg = read(sierra(text, attributes=FACTS | {"dataencoding": encoding}, encoding=written))
    assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 500.0)
    assert np.allclose(ecg.signal_mv, STORED * 0.005)
    assert (ecg.meta.language, ecg.meta.notch_hz, ecg.meta.record_id) == ("de", 50.0, "guid")


def test_version_1_03_states_its_facts_with_the_acquisition():
    ecg = read(sierra(BYTES, version="1.03", attributes=OLD_FACTS, acquired=OLD))
    assert np.allclose(ecg.signal_mv, (STORED - 100) * 0.0025)
    assert (ecg.meta.highpass_hz, ecg.meta.lowpass_hz) == (0.15, 100.0)


def test_xli_is_unpacked():
    whole = STORED.copy()
    one, two = whole[0], whole[1]
    whole[2] = two - one
    for row, twice in ((3, -(one + two)), (4, one - whole[2]), (5, two + whole[2])):
        whole[row] = np.trunc(twice / 2)
    stored = np.vstack([whole, np.zeros((4, 40), int)])
    stored[2:6] = 0  # nothing is left after the arithmetic
    ecg = read(sierra(xli(stored), attributes=FACTS | {"compression": "XLI"}))
    assert np.allclose(ecg.signal_mv, whole * 0.005)
    chest = FACTS | {"compression": "XLI", "leadlabels": "V1 V2 V3", "numberofleads": 3}
    assert np.allclose(read(sierra(xli(STORED[:3]), attributes=chest)).signal_mv, STORED[:3] * 0.005)


@pytest.mark.parametrize("spelling", [str.upper, str.lower, "Lead_{}".format, "MDC_ECG_LEAD_{}".format])
def test_xli_knows_the_limb_leads_by_any_name(data_folder, spelling):
    """What the file stores of III, aVR, aVL and aVF are remainders: read as they stand they would look like an ECG."""
    data = (data_folder / "formats" / "philips_sierra_xml" / "1_04_ad4d3d80.xml").read_bytes().decode("utf-16")
    assert " ".join(LEADS) in data
    renamed = read(data.replace(" ".join(LEADS), " ".join(map(spelling, LEADS))).encode("utf-16"))
    assert np.array_equal(renamed.signal_mv, read(data.encode("utf-16")).signal_mv, equal_nan=True)


@pytest.mark.parametrize("first", ["II I III aVR aVL aVF", "I II III aVR aVF aVL", "V1 V2 III aVR aVL aVF"])
def test_xli_of_limb_leads_in_another_order_is_refused(first):
    labels = f"{first} {' '.join(LEADS[6:])}"
    with pytest.raises(RecordError) as caught:
        read(sierra(xli(np.zeros((12, 40), int)), attributes=FACTS | {"compression": "XLI", "leadlabels": labels}))
    assert caught.value.reason == "unsupported_format"
    assert "hint: export" in str(caught.value)


def test_a_bomb_of_lzw_is_refused():
    codes = "".join(f"{code:010b}" for code in [0, *range(256, 1022), *[1021] * 20_000])
    chunk = int(codes.ljust(-(-len(codes) // 8) * 8, "0"), 2).to_bytes(-(-len(codes) // 8), "big")
    packed = base64.b64encode(len(chunk).to_bytes(4, "little") + bytes(4) + chunk).decode()
    facts = FACTS | {"compression": "XLI", "leadlabels": "V1", "numberofleads": 1}
    for duration, reason in ((80, "header_mismatch"), (10**9, "too_large")):
        with pytest.raises(RecordError) as caught:
            read(sierra(packed, attributes=facts | {"durationperchannel": duration}))
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resolution": ""}, "missing_unit"),
        ({"samplespersecond": ""}, "missing_sampling_rate"),
        ({"durationperchannel": 82}, "truncated_file"),
        ({"durationperchannel": ""}, "header_mismatch"),
        ({"numberofleads": 13}, "header_mismatch"),
        ({"leadlabels": ""}, "missing_lead_names"),
        ({"compression": "Huffman"}, "unsupported_format"),
        ({"dataencoding": "Base85"}, "unsupported_format"),
        ({"bitspersample": 12}, "unsupported_format"),
        ({"dataencoding": "Hex"}, "unreadable_file"),
        ({"compression": "XLI"}, "truncated_file"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(changes, reason):
    with pytest.raises(RecordError) as caught:
        read(sierra(BYTES, attributes=FACTS | changes))
    assert caught.value.reason == reason


def test_other_versions_and_samples_elsewhere_are_refused():
    for data, reason in (
        (sierra(BYTES, version="2.0", attributes=FACTS), "unsupported_format"),
        (sierra("", attributes=FACTS), "no_ecg_lead"),
    ):
        with pytest.raises(RecordError) as caught:
            read(data)
        assert caught.value.reason == reason


def test_damaged_files_are_read_or_refused():
    reasons = refuses_damage(
        read,
        sierra(
            xli(STORED[:3]), attributes=FACTS | {"compression": "XLI", "leadlabels": "V1 V2 V3", "numberofleads": 3}
        ),
        150,
    )
    assert reasons["read"] > 0
    assert {"unreadable_file", "truncated_file"} <= set(reasons)


@pytest.mark.parametrize("encoding", ["Base64", "Plain"])
def test_samples_that_are_no_whole_leads_are_refused(encoding):
    samples = np.random.default_rng(0).integers(-300, 300, (12, 1100))
    attributes = {"dataencoding": encoding, "compression": "None", "numberofleads": 12, "samplespersecond": 500,
                  "leadlabels": " ".join(LEADS), "durationperchannel": "2000", "resolution": 5,
                  "bitspersample": 16}  # fmt: skip
    coded = base64.b64encode(samples.astype("<i2").tobytes()).decode()
    flat = coded if encoding == "Base64" else " ".join(map(str, samples.reshape(-1)))
    with pytest.raises(RecordError) as caught:
        read(sierra(flat, attributes=attributes))
    assert caught.value.reason == "header_mismatch"
    assert read(sierra(flat, attributes=attributes | {"durationperchannel": "2200"})).signal_mv.shape == (12, 1100)
