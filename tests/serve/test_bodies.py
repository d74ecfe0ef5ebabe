"""Bodies from anybody: every format read and refused, a fuzz of the decoder, and the same over real HTTP."""

import io
import json
import pickle
import re
import resource
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.read import read_ecg
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import RecordError, RequestError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve.bodies import BodyLimits, BodyParameters, JsonEcg, decode_body, parse_json
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg
from tests.support.wfdb_records import edit_header, packed, write_record
from tests.support.xml_ecgs import muse
from tests.support.zips import zipped

MIB = 2**20
LIMITS = BodyLimits(max_body_bytes=MIB, max_ecgs=4, max_duration_s=120.0)
ALL = BodyParameters("mV", 100.0, LEADS)
BESIDE_CSV = BodyParameters("mV", 100.0)
FORM = "multipart/form-data; boundary=cut"
SIGNAL = np.round(synthetic_ecg().signal_mv, 3)
DIGITAL = np.rint(SIGNAL.T * 1000).astype("<i2")
HEADER = "r 12 100 1000\n" + "".join(
    f"r.dat 16 1000/mV 16 0 0 {total} 0 {lead}\n"
    for lead, total in zip(LEADS, DIGITAL.sum(0, dtype="<i2"), strict=True)
)

ONE_LEAD = "r 1 100 1000\nr.dat 16 1000/mV\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(load_bundle(str(bundle)), device="cpu", text_cache_texts=10_000)


def form(*files):
    """A multipart body of (file name or None, bytes)."""
    parts = []
    for name, data in files:
        shown = b"" if name is None else b'; filename="' + name.encode() + b'"'
        parts.append(b'--cut\r\nContent-Disposition: form-data; name="file"' + shown + b"\r\n\r\n" + data + b"\r\n")
    return b"".join(parts) + b"--cut--\r\n"


def npy_of(header, data=b"", version=(1, 0)):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + data


def table(signal=SIGNAL, names=LEADS, end="\n"):
    return (end.join([",".join(names), *(",".join(map(str, row)) for row in signal.T)]) + end).encode()


def decode(content_type, body, parameters=ALL, limits=LIMITS):
    return decode_body(content_type, body, parameters, limits)


def refused(status, reason, content_type, body, parameters=ALL, limits=LIMITS):
    """The refusal; status 422 for a record that cannot be used, as the server answers it."""
    with pytest.raises((RequestError, RecordError)) as caught:
        decode_body(content_type, body, parameters, limits)
    error = caught.value
    assert (getattr(error, "status", 422), error.reason) == (status, reason), error.fact
    return error


def malformed(content_type, body, parameters=ALL):
    return refused(400, "malformed_body", content_type, body, parameters)


def same(ecg, signal=SIGNAL, atol=1e-12):
    assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 100.0)
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=atol)


# --- WFDB in zips and multipart


@pytest.mark.parametrize(
    ("record", "suffix"),
    [
        ("ptb-xl/records100/00000/00317_lr", ".dat"),
        ("ptb-xl/records500/00000/00204_hr", ".dat"),
        ("cinc2021/georgia/E07504", ".mat"),
        ("cinc2021/georgia/E00002", ".mat"),
    ],
)
def test_real_records_are_read_as_the_sources_read_them(data_folder, record, suffix):
    path = data_folder / record
    files = {f"{path.name}{end}": Path(f"{path}{end}").read_bytes() for end in (".hea", suffix)}
    limits = BodyLimits(8 * MIB, 4, 3600.0)
    expected = read_wfdb(str(path))
    noise = {"__MACOSX/._x.hea": b"\0", ".DS_Store": b"\0", f"__MACOSX/deep/._{path.name}.hea": b"\0"}
    for content_type, body in {
        "application/zip": zipped(files),
        "Application/ZIP; charset=x": zipped({f"deep/er/{name}": data for name, data in files.items()} | noise),
        FORM: form(*files.items()),
        FORM + " ": form(("r.zip", zipped(files))),
    }.items():
        (ecg,) = decode(content_type, body, BodyParameters(), limits)
        assert (ecg.leads, ecg.sampling_rate_hz) == (expected.leads, expected.sampling_rate_hz)
        np.testing.assert_array_equal(ecg.signal_mv, expected.signal_mv)


@pytest.mark.parametrize("fmt", ["8", "16", "80", "212", "24", "32", "61", "160", "310", "311"])
@pytest.mark.parametrize("length", [1000, 998])
@pytest.mark.parametrize("length_is_said", [True, False])
def test_all_formats_are_read_as_the_sources_read_them(tmp_path, fmt, length, length_is_said):
    digital = np.random.default_rng(1).integers(-50, 50, (length, 3))
    by_hand = fmt in ("8", "61", "160", "310", "311")
    record = write_record(
        tmp_path, digital=digital, fmt="16" if by_hand else fmt, adc_gain=[100.0, 200.5, 400.0], baseline=[0, -7, 30]
    )
    if by_hand:
        edit_header(record, ("r.dat 16 ", f"r.dat {fmt} "))
        differences = np.diff(digital, axis=0, prepend=digital[:1]).astype(np.int8)
        (tmp_path / "r.dat").write_bytes(differences.tobytes() if fmt == "8" else packed(digital, fmt))
    if not length_is_said:
        edit_header(record, (f" 100 {length}", " 100"))
    files = {name: (tmp_path / name).read_bytes() for name in ("r.hea", "r.dat")}
    try:
        expected = read_wfdb(record)
    except RecordError as error:  # a packed format ends anywhere in its last group, which the checksums notice
        assert not length_is_said
        refused(422, error.reason, "application/zip", zipped(files))
        return
    (ecg,) = decode("application/zip", zipped(files))
    assert ecg.leads == expected.leads
    np.testing.assert_array_equal(ecg.signal_mv, expected.signal_mv)
    np.testing.assert_allclose(ecg.signal_mv[1], (digital[:, 1] + 7) / 200.5, rtol=1e-12)


def test_names_in_capitals_and_other_letters_are_read():
    same(decode("application/zip", zipped({"R.HEA": HEADER, "r.dat": DIGITAL.tobytes()}))[0])
    header = HEADER.replace("r.dat", "Säure.dat")
    same(decode("application/zip", zipped({"r.hea": header, "Säure.dat": DIGITAL.tobytes()}))[0])


def test_the_samples_that_were_checked_are_the_samples_that_are_decoded():
    """One reading of the header. wfdb drops what is not ASCII: it would read 1001000 Hz and 500 samples here."""
    header = HEADER.replace("100 1000", "100\u00a01000 500")
    same(decode("application/zip", zipped({"r.hea": header, "r.dat": DIGITAL.tobytes()}))[0])
    # file `r.dat`, format 16 and gain 508 in one reading; file `r.dat16` in FLAC (508) in the other
    header = "r 2 100 1000\nr.dat\u00a016 508/mV\nr.dat16 16 1000/mV\n"
    files = {"r.hea": header, "r.dat": b"\1\0" * 1000, "r.dat16": b"\2\0" * 1000}
    (ecg,) = decode("application/zip", zipped(files))
    np.testing.assert_allclose(ecg.signal_mv, np.repeat([[1 / 508], [2 / 1000]], 1000, axis=1))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (ONE_LEAD.replace(" 16 ", " 508 "), "unsupported_format"),
        (ONE_LEAD.replace(" 16 ", " 516 "), "unsupported_format"),
        (ONE_LEAD.replace(" 1000\n", f" {10**18}\n"), "truncated_file"),
        (ONE_LEAD.replace(" 1000\n", f" {'9' * 4000}\n"), "unreadable_header"),
        (ONE_LEAD.replace(" 1000\n", f" {'9' * 5000}\n"), "unreadable_header"),
        (ONE_LEAD.replace(" 1000\n", " -5\n"), "header_mismatch"),
        (ONE_LEAD.replace(" 16 ", f" 16+{10**12} "), "truncated_file"),
        (ONE_LEAD.replace("r.dat", "../../r.dat"), "unreadable_header"),
        (ONE_LEAD.replace("r.dat", "/etc/hostname"), "unreadable_header"),
        (ONE_LEAD.replace("r.dat", "r.hea"), "missing_file"),
        (ONE_LEAD.replace("r.dat", "other.dat"), "missing_file"),
        (ONE_LEAD.replace("r 1 ", "r/2 1 "), "header_mismatch"),
        (ONE_LEAD.replace("r 1 ", "r 99999999999 "), "unsupported_format"),
        (ONE_LEAD.replace("r 1 ", f"r {'9' * 5000} "), "unreadable_header"),
        (ONE_LEAD.replace("r 1 ", "r ² "), "unreadable_header"),
        (ONE_LEAD.replace("1000/mV", f"1000({10**400})/mV"), "unreadable_header"),
        (ONE_LEAD.replace("1000/mV", "0/mV"), "missing_unit"),
        (ONE_LEAD.replace(" 1000/mV", ""), "missing_unit"),
        ("", "unreadable_header"),
        ("\0\0", "unreadable_header"),
    ],
)
def test_headers_that_cannot_be_are_refused(header, reason):
    files = {"r.hea": header, "r.dat": b"\1\0" * 1000}
    refused(422, reason, "application/zip", zipped(files))
    refused(
        422, reason, FORM, form(*((name, data.encode() if name == "r.hea" else data) for name, data in files.items()))
    )


def test_a_million_signal_lines_are_refused_at_once():
    """Half a second, where parsing all lines takes six."""
    line = "r.dat 16 1000/mV 16 0 0 0 0 I\n"
    body = zipped({"r.hea": f"r {10**6} 100 1000\n" + line * 10**6, "r.dat": b"\1\0" * 1000}, zipfile.ZIP_STORED)
    began = time.perf_counter()
    refused(422, "unsupported_format", "application/zip", body, limits=BodyLimits(8 * MIB, 4, 120.0))
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize("length", ["", str(4 * MIB - 4000)])
@pytest.mark.parametrize(("rate", "leads"), [("100", 1), ("1e9", 1), ("1e-9", 1), ("10000", 4)])
def test_long_records_are_refused_before_they_are_decoded(rate, leads, length):
    """Decoding takes 20 bytes of memory for a sample: 80 MB for 4 MiB of format 80, which pack to 4 kB."""
    header = f"r {leads} {rate} {length and int(length) // leads}\n" + "r.dat 80 1000/mV\n" * leads
    body = zipped({"r.hea": header, "r.dat": bytes(4 * MIB - 4000)}, zipfile.ZIP_STORED)
    reason = "too_long" if rate in ("100", "10000") else "implausible_sampling_rate"
    assert peak_bytes(lambda: refused(422, reason, "application/zip", body)) < 16 * MIB


def test_a_header_of_comments_is_refused():
    header = "# c\n" * 300_000 + ONE_LEAD
    refused(
        422,
        "unsupported_format",
        "application/zip",
        zipped({"r.hea": header, "r.dat": bytes(2000)}, zipfile.ZIP_STORED),
    )


def test_one_record_at_a_time():
    record = {"r.hea": HEADER, "r.dat": DIGITAL.tobytes()}
    refused(422, "several_records", "application/zip", zipped(record | {"s.hea": HEADER}))
    refused(422, "several_records", "application/zip", zipped(record | {"deep/r.hea": HEADER}))
    refused(422, "several_records", FORM, form(("r.hea", HEADER.encode()), ("R.HEA", HEADER.encode())))
    refused(422, "no_record", "application/zip", zipped({"a.csv": table(), "b.csv": table()}))
    refused(422, "no_record", "application/zip", zipped({"a.csv": table(), "readme.txt": ""}))
    refused(422, "no_record", "application/zip", zipped({}))
    refused(422, "missing_file", "application/zip", zipped({"r.hea": HEADER, "deep/r.dat": DIGITAL.tobytes()}))


# --- zips


def test_zips_in_other_methods_and_damaged_ones_are_refused():
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        malformed("application/zip", zipped({"a.csv": table()}, method))
    whole = zipped({"a.csv": table()})
    directory = whole.find(b"PK\1\2")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    malformed("application/zip", bytes(encrypted))
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        malformed("application/zip", whole[:cut])
    malformed("application/zip", zipped({str(number): b"" for number in range(65)}))


def test_a_zip_whose_directory_points_beyond_everything_is_refused():
    whole = zipped({"a.csv": table()})
    directory, end = whole.find(b"PK\1\2"), whole.find(b"PK\5\6")
    far = bytearray(whole)
    far[directory + 42 : directory + 46] = b"\xfe\xff\xff\xff"
    malformed("application/zip", bytes(far))
    # zip64: the offset is 64 bits of an extra field
    entry = bytearray(whole[directory:end])
    entry[42:46] = b"\xff" * 4
    entry[30:32] = (12).to_bytes(2, "little")
    entry += b"\1\0\10\0" + b"\xff" * 8
    tail = bytearray(whole[end:])
    tail[12:16] = len(entry).to_bytes(4, "little")
    malformed("application/zip", whole[:directory] + bytes(entry) + bytes(tail))


def test_two_files_of_one_name_are_refused():
    """The one that stands last must not silently win."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("r.hea", ONE_LEAD), ("r.dat", b"\1\0" * 1000), ("s.dat", b"\2\0" * 1000)):
            archive.writestr(name, data)
    malformed("application/zip", buffer.getvalue().replace(b"s.dat", b"r.dat"))


def test_a_file_without_a_name_is_what_its_content_says():
    """zipfile of Python 3.11 raises IndexError when it is asked whether such a member is a folder."""
    whole = zipped({"a.csv": table()}, zipfile.ZIP_STORED)
    nameless = bytearray(whole.replace(b"a.csv", b""))
    directory, end = nameless.find(b"PK\1\2"), nameless.find(b"PK\5\6")
    for place in (26, directory + 28):
        nameless[place : place + 2] = b"\0\0"
    nameless[end + 12 : end + 20] = (end - directory).to_bytes(4, "little") + directory.to_bytes(4, "little")
    (ecg,) = decode("application/zip", bytes(nameless), BESIDE_CSV)
    same(ecg, atol=1e-3)


def test_a_directory_of_many_entries_is_refused_at_once():
    """All of them are one file. zipfile takes three seconds for the 170,000 that 8 MB can list."""
    whole = zipped({"a": b""}, zipfile.ZIP_STORED)
    directory, end = whole.find(b"PK\1\2"), whole.find(b"PK\5\6")
    entries = whole[directory:end] * 20_000
    tail = bytearray(whole[end:])
    tail[12:16] = len(entries).to_bytes(4, "little")
    body = whole[:directory] + entries + bytes(tail)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(archive.infolist()) == 20_000
    assert peak_bytes(lambda: malformed("application/zip", body)) < MIB


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("lie", [False, True])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(lie):
    """4 MiB may be unpacked of a body of 1 MiB; zipfile holds a piece twice while it appends to it."""
    bomb = bytearray(zipped({"a.csv": bytes(100 * MIB)}))
    if lie:  # in both places where its size stands
        for place in (22, bomb.find(b"PK\1\2") + 24):
            assert int.from_bytes(bomb[place : place + 4], "little") == 100 * MIB
            bomb[place : place + 4] = (1000).to_bytes(4, "little")

    def unpack():
        if lie:  # zipfile stops at the length that is announced, and then the sum is wrong
            malformed("application/zip", bytes(bomb))
        else:
            refused(413, "too_large", "application/zip", bytes(bomb))

    assert peak_bytes(unpack) < 16 * MIB


def test_many_files_that_are_too_large_together_are_refused():
    body = zipped({f"{number}.dat": bytes(MIB) for number in range(50)})
    assert peak_bytes(lambda: refused(413, "too_large", "application/zip", body)) < 16 * MIB


def test_a_zip_in_a_zip_is_refused():
    """Each would be held while the next is unpacked: 15 of them, padded with zeros, took 420 MB from 34 kB."""
    body = zipped({"a.csv": table()})
    for _ in range(15):
        body = zipped({"a.zip": bytes(2 * MIB) + body})
    assert peak_bytes(lambda: malformed("application/zip", body)) < 16 * MIB
    malformed(FORM, form(("a.zip", zipped({"b.ZIP": zipped({"a.csv": table()})}))))


def test_a_file_in_a_zip_may_be_no_larger_than_a_body():
    """A number of JSON takes 16 times its characters in memory, and a zip unpacks to four bodies."""
    text = b'{"unit":"mV","leads":["I"],"sampling_rate_hz":100,"signal":[[' + b"0," * 10**6 + b"0]]}"
    assert peak_bytes(lambda: refused(413, "too_large", "application/zip", zipped({"a.json": text}))) < 16 * MIB


def backslashed(files):
    """A zip as PowerShell 5 writes it. The separators are put in afterwards."""
    body = zipped({name.replace("/", "|"): data for name, data in files.items()})
    for name in files:
        body = body.replace(name.replace("/", "|").encode(), name.replace("/", "\\").encode())
    return body


def test_folders_separated_by_backslashes_are_folders():
    record = {"deep/er/r.hea": HEADER, "deep/er/r.dat": DIGITAL.tobytes()}
    noise = {
        "deep/": b"",
        "deep/er/.DS_Store": b"\0",
        "__MACOSX/deep/._r.hea": b"\0",
        "../x.hea": b"\0",
        "deep/../y.hea": b"",
    }
    for body in (backslashed(record), backslashed(record | noise)):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert "deep\\er\\r.hea" in archive.namelist()
        same(decode("application/zip", body)[0])
        same(decode(FORM, form(("r.zip", body)))[0])
    # one file under two spellings of its name
    twice = zipped({"a/r.hea": HEADER, "a/r.dat": DIGITAL.tobytes(), "a|r.dat": b"\1\0"}).replace(
        b"a|r.dat", b"a\\r.dat"
    )
    malformed("application/zip", twice)
    malformed("application/zip", zipped({"a|b.zip": zipped({"a.csv": table()})}).replace(b"a|b.zip", b"a\\b.ZIP"))


def test_a_zip_is_compressed_no_more_than_a_record_can_be():
    """Ten times its size, but a small one up to a megabyte: what is compressed a thousandfold is no recording."""
    record = {"r.hea": ONE_LEAD, "r.dat": b"\1\0" * 1000}
    decode("application/zip", zipped(record | {"pad": bytes(900_000)}))
    refused(413, "too_large", "application/zip", zipped(record | {"pad": bytes(1_100_000)}))


def test_other_formats_come_in_zips_too():
    for name, data in (("a.csv", table()), ("A.NPY", npy(SIGNAL)), ("x/a.json", json.dumps(json_ecg(synthetic_ecg())))):
        (ecg,) = decode("application/zip", zipped({name: data}), ALL if name == "A.NPY" else BESIDE_CSV)
        same(ecg, atol=1e-3)


# --- every other format


@pytest.mark.parametrize(
    ("name", "leads"),
    [
        ("hl7_aecg/fda_subject1_0.xml", 12),
        ("muse_xml/braveheart_example1.xml", 8),
        ("philips_sierra_xml/1_04_ad4d3d80.xml", 12),
        ("dicom/pydicom_waveform_ecg.dcm", 12),
        ("scp/ecgtoolkit_Example.scp", 12),
    ],
)
def test_files_of_hospitals_are_read_by_their_content(data_folder, name, leads):
    body = (data_folder / "formats" / name).read_bytes()
    kinds = ["application/octet-stream"]
    kinds += ["application/xml", "text/xml"] if name.endswith("xml") else []
    kinds += ["application/dicom"] if name.endswith("dcm") else []
    bodies = [(kind, body) for kind in kinds]
    bodies += [("application/zip", zipped({"any.name": body})), (FORM, form(("any.name", body)))]
    expected = read_ecg(body)
    for kind, sent in bodies:
        (ecg,) = decode(kind, sent, BodyParameters())
        assert (len(ecg.leads), ecg.meta) == (leads, expected.meta)
        assert np.array_equal(ecg.signal_mv, expected.signal_mv, equal_nan=True)


def test_what_has_no_type_is_read_by_its_content_too():
    for body, parameters in ((npy(SIGNAL), ALL), (table(), BESIDE_CSV), (zipped({"a.csv": table()}), BESIDE_CSV)):
        (ecg,) = decode("application/octet-stream", body, parameters)
        same(ecg, atol=1e-3)
    refused(422, "unsupported_format", "application/octet-stream", b"no ECG")
    refused(400, "malformed_body", "application/octet-stream", b"PK\3\4 cut off")
    refused(422, "missing_unit", "application/octet-stream", table(), BodyParameters(None, 100.0))
    refused(413, "too_large", "application/zip", zipped({"a": bytes(MIB + 1)}, zipfile.ZIP_STORED))


def test_long_files_of_hospitals_are_refused():
    day = muse({"I": np.zeros(1000, "<i2")}, changes={"SampleBase": 1})
    refused(422, "too_long", "application/octet-stream", muse({"I": np.zeros(60_001, "<i2")}))
    assert decode("application/octet-stream", day)[0].signal_mv.shape == (1, 1000), (
        "at a rate that `preprocess` refuses"
    )


# --- npy


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8", ">i2", "<i2", "<i4", "<i8", "<u2", "|i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_all_kinds(dtype, order):
    unit = "uV" if dtype[1] in "iu" else "mV"
    scaled = SIGNAL * 1000 if unit == "uV" else SIGNAL
    array = np.asarray(np.clip(scaled, *((0, 127) if dtype in ("|i1", "<u2") else (-1e9, 1e9)))).astype(dtype, order)
    expected = array.astype(np.float64) / (1000 if unit == "uV" else 1)
    for version in ((1, 0), (2, 0)):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, version=version)
        (ecg,) = decode("application/x-npy", buffer.getvalue(), BodyParameters(unit, 100.0, LEADS))
        same(ecg, expected)


def test_several_ecgs_in_an_array():
    array = np.stack([SIGNAL, -SIGNAL])
    for order in ("C", "F"):
        first, second = decode("application/x-npy", npy(np.array(array, order=order)))
        same(first)
        same(second, -SIGNAL)
    refused(413, "too_many_ecgs", "application/x-npy", npy(np.zeros((5, 12, 10))))


class Bomb:
    """Makes a file when it is unpickled."""

    marker: ClassVar[str] = ""

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_nothing_is_unpickled(tmp_path):
    Bomb.marker = str(tmp_path / "marker")
    array = np.empty((12, 10), dtype=object)
    array[:] = Bomb()
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    pickled = pickle.dumps(Bomb())
    bodies = [buffer.getvalue(), pickled, npy_of("{'descr':'|O','fortran_order':False,'shape':(1,1)}", pickled)]
    for body in bodies:
        malformed("application/x-npy", body)
        malformed("application/zip", zipped({"a.npy": body}))
        malformed(FORM, form(("a.npy", body)))
    assert not Path(Bomb.marker).exists()
    with np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True)[0, 0]:
        assert Path(Bomb.marker).exists()  # the bomb is live


def fields(descr="'<f4'", shape="(1,10)", order="False"):
    return f"{{'descr':{descr},'fortran_order':{order},'shape':{shape}}}"


@pytest.mark.parametrize(
    "header",
    [
        fields("[('a','<f4')]"),
        fields("'<c8'"),
        fields("'|b1'"),
        fields("'<U1'"),
        fields("'<M8[s]'"),
        fields("'<f16'"),
        fields("()"),
        fields("[]"),
        fields("{}"),
        fields("None"),
        fields("('<f4',(2,))"),
        fields("('<f4',10**9)"),
        fields("('<f4',99999999999)"),
        fields("'<f99999999999999999999'"),
        fields(shape="(10,)"),
        fields(shape="()"),
        fields(shape="(1,1,1,10)"),
        fields(shape="(-1,-10)"),
        fields(shape="(-2,-5)"),
        fields(shape="(-1,-10,1)"),
        fields(shape="(True,10)"),
        fields(shape="(1,10.0)"),
        fields(shape="(1000000000,1000000000)"),
        fields(shape=f"({'9' * 4000},{'9' * 4000})"),
        fields(shape="9" * 5000),
        fields(order="7"),
        fields()[:-2],
        fields() + "}",
        "(" * 3000,
        "-" * 9000 + "1",
        " " * 20_000 + fields(),
        "__import__('os').getcwd()",
        "{[]:1}",
        "'\\N{x}'",
        "\0",
        "",
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_headers_of_arrays_that_cannot_be(header, version):
    malformed("application/x-npy", npy_of(header, bytes(40), version))


def test_arrays_whose_shape_lies():
    for shape in ("(12,999999999)", "(0,1" + "0" * 30 + ")", "(12,9)", "(12,11)"):
        for data in (b"", bytes(12 * 10 * 4)):
            body = npy_of(fields(shape=shape), data)
            assert peak_bytes(lambda body=body: malformed("application/x-npy", body)) < MIB
    malformed("application/x-npy", npy(SIGNAL)[:-1])
    malformed("application/x-npy", npy(SIGNAL) + b"\0")
    malformed("application/x-npy", npy_of(fields(), bytes(40), (3, 0)))
    malformed("application/x-npy", npy_of(fields(), bytes(40), (9, 9)))
    for cut in range(20):
        malformed("application/x-npy", npy(SIGNAL)[:cut])


def test_empty_arrays_are_no_ecg(predictor):
    with pytest.raises(RequestError) as refused:
        decode("application/x-npy", npy(np.zeros((0, 12, 10))), BodyParameters("mV", 100.0, LEADS))
    assert refused.value.reason == "no_ecg"
    for shape in ((12, 0), (0, 10), (1, 12, 0), (1, 0, 10)):
        parameters = BodyParameters("mV", 100.0, LEADS if 12 in shape else ())
        for ecg in decode("application/x-npy", npy(np.zeros(shape)), parameters):
            with pytest.raises(RecordError):
                predictor.windows(ecg)


# --- CSV


def test_tables_of_all_kinds():
    plain = table()
    quoted = table(names=[f'"{lead}"' for lead in LEADS])
    times = table(np.vstack([np.arange(1000) / 100 + 7, SIGNAL]), ["time_s", *LEADS])
    for body in (plain, b"\xef\xbb\xbf" + plain, table(end="\r\n"), plain.rstrip(), plain + b"\n", quoted, times):
        (ecg,) = decode("text/csv; charset=utf-8", body, BESIDE_CSV)
        same(ecg)
    (ecg,) = decode("text/csv", b"\xef\xbb\xbf" + quoted.replace(b"\n", b"\r\n"), ALL)  # the same leads said twice
    same(ecg)
    refused(422, "leads_twice", "text/csv", plain, BodyParameters("mV", 100.0, LEADS[::-1]))


def with_index(start=0, name="", end=""):
    """The table as `DataFrame.to_csv` writes it with its index."""
    head, *rows = table().decode().strip().split("\n")
    lines = [f"{name},{head}{end}", *(f"{start + number},{row}{end}" for number, row in enumerate(rows))]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "body",
    [
        with_index(),
        with_index(start=1),
        with_index(name='""'),
        with_index(name="Unnamed: 0"),
        with_index(name="index"),
        with_index(end=","),
        b"\xef\xbb\xbf" + with_index(),
        with_index().replace(b"\n", b"\r\n"),
        with_index().replace(b"\n", b"\r"),
        table(end=",\n"),
        table(end=",\r\n"),
    ],
)
def test_an_index_and_a_comma_at_the_end_are_no_leads(body):
    (ecg,) = decode("text/csv", body, BESIDE_CSV)
    same(ecg)
    (ecg,) = decode("application/zip", zipped({"a.csv": body}), BESIDE_CSV)
    same(ecg)


def test_a_first_column_without_a_name_that_is_no_index_is_refused_by_name():
    times = table(np.vstack([np.arange(1000) / 100, SIGNAL]), ["", *LEADS])
    samples = table(SIGNAL, ["", *LEADS[1:]])
    for body in (times, samples, with_index().replace(b"\n500,", b"\n501,")):
        error = malformed("text/csv", body, BESIDE_CSV)
        assert "first column" in error.fact
        assert "index=False" in error.hint
    assert "last column" in malformed("text/csv", table(SIGNAL, [*LEADS[:11], ""]), BESIDE_CSV).fact
    # rows that are one cell longer than the header: never shifted
    malformed("text/csv", table().replace(b"\n", b",\n").replace(b",\n", b"\n", 1), BESIDE_CSV)
    for body in (b"\n1,2\n", b",\n1,2\n", b"\r\n1\n"):
        assert "header" in malformed("text/csv", body, BESIDE_CSV).fact
    for body in (b"I" * 17_000 + b"\n1\n", b'"' * 17_000, b"\xef\xbb\xbf" + b"I," * 9_000 + b"\n"):
        assert "first line" in malformed("text/csv", body, BESIDE_CSV).fact


@pytest.mark.parametrize("rate", [50.0, 101.0, 500.0, 0.0, -0.0, -1.0, 1e-300, 1e300, np.nan, np.inf])
def test_a_column_of_times_that_is_not_of_the_rate(rate):
    body = table(np.vstack([np.arange(1000) / 100, SIGNAL]), ["time_s", *LEADS])
    refused(422, "sampling_rate_mismatch", "text/csv", body, BodyParameters("mV", rate))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"I",
        table().replace(b",", b";"),
        table().replace(b",", b"\t"),
        b"I;II\n0,1;0,2\n",
        b"I,I\n1,2\n",
        b"I,II\n1\n",
        b"I,II\n1,2,3\n",
        b"I\nabc\n",
        b"I\n0x10\n",
        b'I\n"1\n',
        b"I\n\0\n",
        b"I\n" + b"1" * 3_000_000,
        b"a" * 3_000_000,
        ",".join(f"lead{number}" for number in range(70)).encode() + b"\n",
        "I,II\n1,2\n".encode("utf-16"),
        "\ufeffI,II\n1,2\n".encode("utf-16-be"),
        bytes(range(256)),
        npy(SIGNAL),
    ],
)
def test_tables_that_cannot_be(body):
    malformed("text/csv", body, BESIDE_CSV)


def test_empty_cells_are_missing_samples(predictor):
    rows = table().split(b"\n")
    rows[5] = b"," + rows[5].partition(b",")[2]
    (ecg,) = decode("text/csv", b"\n".join(rows), BESIDE_CSV)
    assert np.isnan(ecg.signal_mv[0, 4])
    with pytest.raises(RecordError) as caught:
        predictor.windows(ecg)
    assert (caught.value.reason, "I (1)" in caught.value.fact) == ("non_finite", True)


# --- multipart


def test_forms_that_cannot_be():
    malformed("multipart/form-data", form(("a.csv", table())))
    malformed("multipart/form-data; boundary=", form(("a.csv", table())))
    malformed(f"multipart/form-data; boundary={'a' * 500}", form(("a.csv", table())))
    malformed("multipart/form-data; boundary=€", form(("a.csv", table())))
    malformed(FORM, form((None, table())))
    malformed(FORM, form(("a.csv", table()), ("a.csv", table())))
    malformed(FORM, form(("x/a.csv", table()), ("y\\a.csv", table())))
    malformed(FORM, form(*((f"{number}.dat", b"") for number in range(100))))
    malformed(FORM, b"--cut\r\n\r\nno header\r\n--cut--\r\n")
    refused(422, "no_record", FORM, b"")
    refused(422, "unsupported_format", FORM, form(("", b"no ECG")))
    for encoding in (b"base64", b"\xff"):
        coded = form(("a.csv", b"#!")).replace(
            b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n", 1
        )
        malformed(FORM, coded)
    (ecg,) = decode(FORM, form(("C:\\my ecgs\\a.csv", table())), BESIDE_CSV)
    same(ecg)


# --- JSON


def test_a_byte_order_mark_before_json_is_left_out():
    """RFC 8259, section 8.1; .NET and PowerShell write it."""
    body = b"\xef\xbb\xbf" + json.dumps(json_ecg(Ecg(SIGNAL, LEADS, 100.0))).encode()
    for content_type, sent in {
        "application/json": body,
        "application/zip": zipped({"a.json": body}),
        FORM: form(("a.json", body)),
    }.items():
        same(decode(content_type, sent)[0])


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", "\r\n:")])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_rows_are_read_to_the_last_digit_however_they_are_written(separators, indent):
    random = np.random.default_rng(3)  # exponents such as 1e-05 are among them
    signal = np.concatenate(
        [random.normal(size=(3, 40)) * 10.0 ** random.integers(-300, 300, (3, 40)), [[0.0, -0.0, 1, -1, 5e-324]] * 3], 1
    )
    wanted = {"unit": "mV", "leads": ["[1,2]", '"[3]', '\\"[4]\\'], "sampling_rate_hz": 1e4, "signal": signal.tolist()}
    ecg = parse_json(JsonEcg, json.dumps(wanted, separators=separators, indent=indent).encode(), LIMITS)
    assert ecg.leads == wanted["leads"]
    np.testing.assert_array_equal(np.array(ecg.signal), signal)


def test_a_row_is_never_taken_for_another():
    """`[7]` stands for a row that was taken out of the text; what a client writes must not be read as one."""
    start = '{"unit":"mV","leads":["I"],"sampling_rate_hz":100,"signal":'
    found = parse_json(JsonEcg, (start + "[[1,2],[1],[0]]}").encode(), LIMITS)
    assert [list(row) for row in found.signal] == [[1, 2], [1], [0]]
    for text in ('[[1,2],["1"],[0]]', '[["0"],[5]]', "[[true],[6]]", "[[false]]"):
        with pytest.raises(RequestError, match="`signal") as caught:
            parse_json(JsonEcg, (start + text + "}").encode(), LIMITS)
        assert caught.value.reason == "bad_fields"
    for rate in ('"100"', "true"):
        body = '{"unit":"mV","leads":["I"],"signal":[[1,2]],"sampling_rate_hz":' + rate + "}"
        malformed("application/json", body.encode())
    for place in ("unit", "leads", "sampling_rate_hz"):
        wrong = {"unit": "mV", "leads": ["I"], "sampling_rate_hz": 100, "signal": [[1]]} | {place: [0]}
        malformed("application/json", json.dumps(wrong).encode())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 10_000, "too_many_arrays"),
        (b"[0]," * 10_000, "too_many_arrays"),
        (b"{" * 10_000, "too_many_objects"),
        (b'"",' * 100_000, "too_many_strings"),
        (b"{" + b'"":0,' * 100_000, "too_many_strings"),
        (b"null," * 200_000, "too_many_values"),
    ],
)
def test_what_a_body_may_hold_is_counted_before_it_is_parsed(body, reason):
    assert peak_bytes(lambda: refused(422, reason, "application/json", body)) < 4 * MIB


def test_json_beside_its_rows_is_small():
    limits = BodyLimits(8 * MIB, 4, 120.0)
    for filler in (b" ", b'"', b"x", b"0"):
        body = b'{"unit":' + filler * (2 * MIB)
        with pytest.raises(RequestError):
            parse_json(JsonEcg, body, limits)
    whole = '{"unit":"mV","leads":["I"],"sampling_rate_hz":100,"signal":[[' + "0.5," * (MIB // 2) + "1]]}"
    assert len(parse_json(JsonEcg, whole.encode(), limits).signal[0]) == MIB // 2 + 1
    assert "null" in refused(413, "too_large", "application/json", whole.replace("1]]", "null]]").encode()).hint


def test_json_that_cannot_be(predictor):
    good = {"signal": [[1.0, 2.0]], "unit": "mV", "leads": ["I"], "sampling_rate_hz": 100}
    for text in (
        "",
        "null",
        "[]",
        "[" * 1000,
        '{"signal":' + "[" * 1000,
        '{"signal":' + "[" * 1000 + "]" * 1000 + "}",
        json.dumps(good).replace('"I"', '"\\ud800"'),
        json.dumps(good).replace("1.0", "1" + "0" * 5000 + "x"),
        json.dumps(good).replace("1.0", "1 0"),
        json.dumps(good).replace("1.0", ""),
        json.dumps(good).replace("1.0", "-"),
        *(json.dumps(good).replace("1.0", number) for number in ("3,000", "-00", ".5", "5.", "5.e1", "+5", "1, -05.2")),
        json.dumps(good | {"signal": [[None]]}),
        json.dumps(good | {"signal": [1.0]}),
        json.dumps(good | {"sampling_rate_hz": "fast"}),
        json.dumps(good | {"more": 1}),
    ):
        malformed("application/json", text.encode())
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert "UTF-16" in malformed("application/json", json.dumps(good).encode(encoding)).fact
    malformed("application/json", b"\xef\xbb\xbf" * 2 + json.dumps(good).encode())
    malformed("application/json", b'{"unit":"\xff"}')
    refused(
        422,
        "ragged_signal",
        "application/json",
        json.dumps(good | {"signal": [[1.0], []], "leads": ["I", "II"]}).encode(),
    )
    refused(422, "leads_mismatch", "application/json", json.dumps(good | {"leads": ["I"] * 1000}).encode())
    refused(422, "missing_unit", "application/json", json.dumps(good | {"unit": " "}).encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signal": [], "leads": []}, "missing_leads"),
        ({"signal": [[]] * 12}, "too_short"),
        ({"signal": [[float("nan")] * 1000] * 12}, "non_finite"),
        ({"signal": [[float("-inf")] * 1000] * 12}, "non_finite"),
        ({"signal": [[10**400] * 1000] * 12}, "non_finite"),
        ({"signal": [[1e308, -1e308] * 500] * 12, "unit": "V"}, "non_finite"),
        ({"sampling_rate_hz": float("nan")}, "implausible_sampling_rate"),
        ({"sampling_rate_hz": float("inf")}, "implausible_sampling_rate"),
        ({"sampling_rate_hz": 0}, "implausible_sampling_rate"),
        ({"sampling_rate_hz": 5e-324}, "implausible_sampling_rate"),
        ({"leads": ["\0", *LEADS[1:]]}, "unknown_lead"),
    ],
)
def test_numbers_of_json_that_no_ecg_has(predictor, changes, reason):
    body = json.dumps(json_ecg(synthetic_ecg()) | changes).encode()
    (ecg,) = decode("application/json", body)
    with pytest.raises(RecordError) as caught:
        predictor.windows(ecg)
    assert caught.value.reason == reason


# --- mutated bodies

RECORD = {"r.hea": HEADER.encode(), "r.dat": DIGITAL.tobytes()}
UNNAMED = {"r.hea": b"r 1 100\nr.dat 16 1000/mV\n", "r.dat": DIGITAL.tobytes()}  # nothing that could disagree
JSON = {"a.json": json.dumps(json_ecg(Ecg(SIGNAL, LEADS, 100.0))).encode()}
SEEDS = [
    RECORD,
    RECORD,
    UNNAMED,
    JSON,
    {"a.csv": table()},
    {"a.csv": table(np.vstack([np.arange(1000) / 100, SIGNAL]), ["time_s", *LEADS], "\r\n")},
    {"a.npy": npy(SIGNAL.astype(np.float32))},
    {"a.npy": npy(np.asfortranarray(DIGITAL.T.astype(">i2")))},
    {"a.npy": npy(np.stack([SIGNAL, SIGNAL]).astype("<f2"))},
]
ALONE = {"a.json": "application/json", "a.csv": "text/csv", "a.npy": "application/x-npy"}
TOKENS = [
    *(b"", b" ", b"\n", b"\r\n", b",", b";", b'"', b"(", b"[", b"{", b"}", b"/", b"..", b"\0", b"\xff\xff\xff\xff"),
    *(b"1e9", b"-1e9", b"1000000000", b"9" * 30, b"-1", b"0", b"nan", b"inf", b"1e999"),
    *(b"PK\1\2", b"--cut", b"\xc2\xa0", b"\xe2\x80\xa8", b"<f8", b">i8", b"|O", b"(-1, -1)", b"True", b"None"),
    *(b"212", b"8", b"80", b"310", b"508", b"+24", b"x2", b":3"),
]
RATES = (
    100.0,
    100.0,
    100.0,
    500.0,
    50.0,
    10_000.0,
    np.nan,
    np.inf,
    -np.inf,
    -1.0,
    0.0,
    -0.0,
    1e-300,
    5e-324,
    1e300,
    None,
)
UNITS = ("mV", "mV", "uV", "V", "MV", "", " ", "mmHg", "\0", "µV", "mV" * 1000, None)
LEAD_LISTS = (LEADS, LEADS, LEADS, LEADS[:3], (), ("I",) * 12, ("",) * 12, ("\0", *LEADS[1:]), ("é" * 1000,), None)
TYPES = [
    "application/json",
    "application/x-npy",
    "application/zip",
    "text/csv",
    FORM,
    "multipart/form-data",
    "",
    "a/b;c",
]


def changed(random, body):
    """`body` after one change, half of the time in its first 400 or last 200 bytes, where the structure is."""
    data = bytearray(body)
    at = int(random.integers(len(data) + 1))
    if random.random() < 0.5:
        head = random.random() < 0.7
        at = min(len(data), int(random.integers(400))) if head else max(0, len(data) - int(random.integers(200)))
    length = int(random.integers(1, 1 + min(1000, len(data) + 1)))
    token = TOKENS[random.integers(len(TOKENS))]
    match random.integers(8):
        case 0:  # bits
            for place in random.integers(0, max(1, len(data)), 1 + random.integers(4)):
                data[place : place + 1] = bytes([(data[place] if len(data) else 0) ^ 1 << int(random.integers(8))])
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length]
        case 4:  # a piece of another format
            other = b"".join(SEEDS[random.integers(len(SEEDS))].values())
            start = int(random.integers(len(other)))
            data[at : at + length] = other[start : start + length]
        case 5:
            data[at : at + int(random.integers(6))] = token
        case 6 | 7:  # a number or word of the header
            words = list(re.finditer(rb"[\w.+-]+", data[:600]))
            if words:
                word = words[random.integers(len(words))]
                data[word.start() : word.end()] = token
    return bytes(data)


def mutated(random):
    """(content type, body, parameters): a good body that was changed before and after it was packed."""
    files = dict(SEEDS[random.integers(len(SEEDS))])
    for _ in range(random.integers(3)):
        name = list(files)[random.integers(len(files))]
        files[name] = changed(random, files[name])
    parameters = ALL if "a.npy" in files else BESIDE_CSV
    way = random.integers(4)
    if len(files) == 1 and way < 3:
        ((name, body),) = files.items()
        content_type = ALONE[name]
    elif way % 2:
        content_type, body = FORM, form(*files.items())
    else:
        content_type, body = "application/zip", zipped(files, zipfile.ZIP_STORED if way else zipfile.ZIP_DEFLATED)
    for _ in range(max(0, random.integers(-3, 3))):
        body = changed(random, body)
    if random.random() < 0.05:
        content_type = TYPES[random.integers(len(TYPES))]
    if random.random() < 0.3:
        parameters = BodyParameters(
            UNITS[random.integers(len(UNITS))],
            RATES[random.integers(len(RATES))],
            LEAD_LISTS[random.integers(len(LEAD_LISTS))],
        )
    return content_type, body[: LIMITS.max_body_bytes], parameters


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of numpy's header parser, for a header like `1else`
def test_mutated_bodies_are_read_or_refused(predictor):
    """Nothing but an ECG or a refusal, and no more memory than a few times what a zip of 1 MiB may unpack to.

    The bound is on the growth of the process's largest resident size: 4 MiB unpacked, 16 times that as JSON, and as
    much again for what numpy, arrow and the allocator keep. A length that is believed (1e9 samples) would be gigabytes.
    """
    random = np.random.default_rng(20260101)
    predictor.windows(decode("text/csv", table(), BESIDE_CSV)[0])
    decode("application/zip", zipped(RECORD))  # what is imported on the first use is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {}
    for number in range(2000):
        content_type, body, parameters = mutated(random)
        began = time.perf_counter()
        try:
            ecgs = decode(content_type, body, parameters)
            assert isinstance(ecgs, list)
            for ecg in ecgs:
                signal = predictor.windows(ecg).signal_uv
                assert signal.shape[1:] == (12, 1000)
            outcome = "read"
        except RequestError as error:
            if not 400 <= error.status < 500:
                pytest.fail(f"mutation {number} of {content_type}: {error.status}")
            json.dumps([error.fact, error.hint]).encode()
            outcome = error.reason
        except RecordError as error:
            outcome = error.reason
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {content_type}: {type(error).__name__}") from error
        assert time.perf_counter() - began < 5.0, (number, content_type)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 128, grown_mib
    # The fuzz reaches all layers: whole ECGs, formats, headers, values.
    assert outcomes["read"] > 200, outcomes
    for reason in ("malformed_body", "truncated_file", "unknown_lead", "too_short", "missing_parameter", "non_finite"):
        assert outcomes.get(reason, 0) > 0, outcomes


def test_mutated_bodies_over_http_are_answered(bundle):
    random = np.random.default_rng(7)
    statuses = {}
    labels = {"candidate_labels": ["sinus rhythm", "atrial fibrillation"]}
    with plain_server(bundle, max_body_bytes=MIB) as (client, _):
        for number in range(300):
            content_type, body, parameters = mutated(random)
            path = ("/v1/zero-shot", "/v1/embed", "/v1/ecg")[number % 3]
            query = labels if number % 3 == 0 else {}
            if content_type != "application/json":
                leads = None if parameters.leads is None else ",".join(parameters.leads)
                given = {"unit": parameters.unit, "sampling_rate_hz": parameters.sampling_rate_hz, "leads": leads}
                query = query | {name: value for name, value in given.items() if value is not None}
            elif number % 3 == 0:
                body, query = b'{"candidate_labels": ["sinus rhythm"], "ecg": ' + body + b"}", {}
            elif number % 3 == 1:
                body = b'{"ecg": ' + body + b"}"
            answer = client.post(path, params=query, content=body, headers={"content-type": content_type})
            assert answer.status_code < 500, (number, content_type, answer.text[:500])
            if answer.status_code != 200:
                assert answer.json()["error"]["reason"]
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert {200, 400, 422} <= set(statuses), statuses
        answer = client.post("/v1/zero-shot", json={"ecg": json_ecg(synthetic_ecg())} | labels)
        assert answer.status_code == 200, answer.text
