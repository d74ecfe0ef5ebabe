"""HDF5, text tables, NumPy and MATLAB: each written by another program, read back, and damaged."""

import io
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

from mets_ray.ecg import formats
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.formats import hdf5, hdf5_traces, matlab, npy, text
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import RecordError
from tests.support.damaged_files import refuses_damage

RATE = 500.0
STATED = Stated(RATE, "mV", LEADS)
SIGNAL = np.round(np.random.default_rng(0).normal(0, 0.4, (12, 600)), 3)
TRIES = 60


def of_numpy(array, save=np.save, **named):
    buffer = io.BytesIO()
    save(buffer, *([] if array is None else [array]), **named)
    return buffer.getvalue()


def of_matlab(**variables):
    buffer = io.BytesIO()
    options = {name: variables.pop(name) for name in ("format", "do_compression") if name in variables}
    scipy.io.savemat(buffer, variables, **options)
    return buffer.getvalue()


def of_hdf5(write, user_block=0):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=user_block) as file:
        write(file)
    data = buffer.getvalue()
    if user_block:
        mark = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"
        data = mark.ljust(user_block, b"\0") + data[user_block:]
    return data


def dataset(name, array, **options):
    return lambda file: file.create_dataset(name, data=array, **options)


def of_text(separator=",", decimal=".", header=LEADS, before="", end="\n", signal=SIGNAL):
    lines = [separator.join(f"{value}".replace(".", decimal) for value in row) for row in signal.T]
    return (before + end.join([*([separator.join(header)] if header else []), *lines, ""])).encode()


TEXTS = {
    "comma": of_text(),
    "semicolon, decimal comma": of_text(";", ",", end="\r\n"),
    "tab": of_text("\t"),
    "tab, decimal comma": of_text("\t", ","),
    "blanks": of_text("   ", header=None, before="\r\n\r\nRhythm signal: 600 X 12 \r\n\r\n", end=" \r\n"),
    "blanks, decimal comma": of_text(" ", ",", header=None),
    "comma and blank": of_text(", "),
    "comment": of_text(header=("# I", *LEADS[1:]), before="# made by hand\n"),
    "units": of_text(header=[f"{lead} (mV)" for lead in LEADS]),
    "units with underscores": of_text(header=[f"{lead}_uV" for lead in LEADS], signal=np.asarray(SIGNAL) * 1000),
    "units in Latin-1": of_text(header=[f"{lead} [\xb5V]" for lead in LEADS], signal=np.asarray(SIGNAL) * 1000)
    .decode()
    .encode("latin-1"),
    "UTF-16": ("\ufeff" + of_text("\t").decode()).encode("utf-16-le"),
    "byte order mark": b"\xef\xbb\xbf" + of_text(),
    "quoted": pd.DataFrame(SIGNAL.T, columns=LEADS).to_csv(index=False, quoting=1).encode(),
    "quoted, decimal comma": pd.DataFrame(SIGNAL.T, columns=LEADS).to_csv(index=False, quoting=1, decimal=",").encode(),
    "pandas index": pd.DataFrame(SIGNAL.T, columns=LEADS).to_csv().encode(),
    "times": pd.DataFrame({"time_s": np.arange(600) / RATE} | dict(zip(LEADS, SIGNAL, strict=True)))
    .to_csv(index=False)
    .encode(),
    "milliseconds": of_text(signal=np.vstack([np.arange(600) * 2.0, SIGNAL]), header=("Time [ms]", *LEADS)),
    "times without a header": of_text(signal=np.vstack([np.arange(600) / RATE, SIGNAL]), header=None),
    "numbered": of_text(signal=np.vstack([np.arange(600), SIGNAL]), header=None),
    "pandas, no names": pd.DataFrame(SIGNAL.T).to_csv().encode(),
}
FILES = {
    "npy": of_numpy(SIGNAL),
    "npy by columns": of_numpy(SIGNAL.T.astype(">f8")),
    "npz": of_numpy(None, np.savez_compressed, ecg=SIGNAL, rate=np.array(500.0), names=np.array(LEADS)),
    "mat 4": of_matlab(ecg=SIGNAL, format="4"),
    "mat 5": of_matlab(ecg=SIGNAL, info={"site": "x"}, names=np.array(LEADS, dtype=object), age=55),
    "mat 7": of_matlab(ecg=SIGNAL.T, do_compression=True),
    "mat 7.3": of_hdf5(dataset("ecg", SIGNAL.T), user_block=512),
    "hdf5": of_hdf5(dataset("a/b/signal", SIGNAL, compression="gzip", shuffle=True, fletcher32=True)),
    "hdf5 by columns": of_hdf5(dataset("x", SIGNAL.T, chunks=(100, 12), compression="lzf")),
    **TEXTS,
}
SPH = of_hdf5(dataset("ecg", np.tile(SIGNAL, 10)[:, :5000].astype("f2"), chunks=(3, 1250), compression="gzip"))


READERS = {"npy": npy, "npz": npy, "mat": matlab, "hdf5": hdf5, "sph": hdf5}
UNNAMED = {"blanks", "blanks, decimal comma", "times without a header", "numbered", "pandas, no names"}


def reader(kind):
    return text if kind in TEXTS else READERS[kind.split()[0]]


@pytest.mark.parametrize("kind", FILES)
def test_what_another_program_wrote_is_read(kind):
    data = FILES[kind]
    assert formats.recognise(data).name == reader(kind).FORMAT
    ecg = formats.decode(data, STATED)
    np.testing.assert_array_equal(ecg.signal_mv, SIGNAL)
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.other_signals) == (LEADS, RATE, ())
    in_microvolts = formats.decode(data, Stated(RATE, "uV", LEADS))
    np.testing.assert_allclose(in_microvolts.signal_mv, SIGNAL / (1 if kind.startswith("units") else 1000), atol=1e-12)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("unstated", "reason"),
    [("sampling_rate_hz", "missing_sampling_rate"), ("unit", "missing_unit"), ("leads", "missing_lead_names")],
)
def test_nothing_is_guessed(kind, unstated, reason):
    facts = {"sampling_rate_hz": RATE, "unit": "mV", "leads": LEADS} | {unstated: None}
    if (kind.startswith("units") and unstated == "unit") or (
        unstated == "leads" and kind in TEXTS and kind not in UNNAMED
    ):
        np.testing.assert_allclose(formats.decode(FILES[kind], Stated(**facts)).signal_mv, SIGNAL, atol=1e-12)
        return
    with pytest.raises(RecordError) as refused:
        formats.decode(FILES[kind], Stated(**facts))
    assert refused.value.reason == reason
    assert refused.value.hint


def refused(data, stated=STATED):
    with pytest.raises(RecordError) as caught:
        formats.decode(data, stated)
    return caught.value.reason


# --- text


def test_columns_that_are_no_lead_are_left_out_by_name():
    ecg = text.read(of_text(header=(*LEADS[:11], "RESP")), Stated(RATE, "mV"))
    assert (ecg.leads, ecg.other_signals) == (LEADS[:11], ("RESP",))
    np.testing.assert_array_equal(ecg.signal_mv, SIGNAL[:11])


def test_a_header_is_believed_and_names_of_no_lead_are_stated():
    numbered = of_text(header=[f"ch{number}" for number in range(12)])
    assert text.read(numbered, STATED).leads == LEADS
    assert text.read(numbered, Stated(RATE, "mV")).leads[0] == "ch0"
    assert refused(of_text(), Stated(RATE, "mV", LEADS[::-1])) == "leads_mismatch"


def test_tables_that_can_be_read_in_two_ways_are_refused():
    assert refused(of_text(",", ",", header=None)) == "leads_mismatch"
    for data in (b"I;II\n1.234,5;2\n1,5;2\n", b"I,II\n1,2\n1,2,3\n1,2\n", b"I;II\n1,5;2\n1.234,5;2\n1,5;2\n"):
        with pytest.raises(RecordError) as caught:
            text.read(data, Stated(RATE, "mV"))
        assert caught.value.reason == "malformed_file"
    for rate in (250.0, 1000.0):
        assert refused(TEXTS["times"], Stated(rate, "mV")) == "sampling_rate_mismatch"
        assert refused(TEXTS["milliseconds"], Stated(rate, "mV")) == "sampling_rate_mismatch"


BARE = Stated(100.0, "mV", ("I", "II"))
UNNAMED_LEADS = Stated(100.0, "mV")


@pytest.mark.parametrize(
    "above",
    [
        "I (mV),II (uV)",
        "I,II\nmV,uV",
        "I,II\n(mV),[uV]",
        "Recorder,seven\nI,II\nmV,uV",
        "'I','II'\n'mV','uV'",
        "I (millivolts),II (Microvolts)",
        "mV,uV",
    ],
)
def test_the_units_of_a_table_come_before_the_stated_one(above):
    ecg = text.read(f"{above}\n0.1,200\n0.3,400\n".encode(), BARE)
    np.testing.assert_allclose(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]], rtol=1e-12)
    assert ecg.leads == ("I", "II")


def test_times_beside_a_line_of_units():
    """As PhysioNet's ATM (with commas) and rdsamp (with blanks) write tables."""
    for data in (
        b"'Elapsed time','II','V1'\n'seconds','mV','mV'\n0.000,0.1,0.2\n0.010,0.3,0.4\n",
        b"   Elapsed time   II    V1\n   (seconds)  (mV)  (mV)\n  0.000 0.1 0.2\n  0.010 0.3 0.4\n",
    ):
        ecg = text.read(data, UNNAMED_LEADS)
        assert ecg.leads == ("II", "V1")
        np.testing.assert_array_equal(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]])
        assert refused(data, Stated(250.0, "mV")) == "sampling_rate_mismatch"


@pytest.mark.parametrize("unit", ["MV", "kV", "counts", "adu", "a.u.", "LSB"])
@pytest.mark.parametrize("stated", [BARE, UNNAMED_LEADS])
def test_a_unit_that_is_none_is_not_overruled_by_the_stated_one(unit, stated):
    with pytest.raises(RecordError) as caught:
        text.read(f"I ({unit}),II [{unit}]\n1,2\n3,4\n".encode(), stated)
    assert caught.value.reason == "unknown_unit"
    assert f"`{unit}`" in caught.value.fact
    assert caught.value.hint


def test_nanovolts():
    ecg = text.read(b"I (nV);II_nV\n100000;200000\n300000;400000\n", UNNAMED_LEADS)
    np.testing.assert_array_equal(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("above", "row"),
    [
        ("", "{0}{s}{1}{s}"),
        ("", "{s}{0}{s}{1}"),
        ("", "{s}{0}{s}{1}{s}"),
        ("I{s}II", "{0}{s}{1}{s}"),
        ("I{s}II{s}", "{0}{s}{1}{s}"),
        ("{s}I{s}II", "{s}{0}{s}{1}"),
    ],
)
def test_separators_at_the_ends_of_lines_are_no_leads(above, row, separator):
    lines = [above.format(s=separator), *(row.format(*pair, s=separator) for pair in ((0.1, 0.2), (0.3, 0.4)))]
    ecg = text.read("\n".join(filter(None, lines)).encode() + b"\n", BARE)
    assert ecg.leads == ("I", "II")
    np.testing.assert_array_equal(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]])


def test_an_index_that_the_header_does_not_name_as_r_writes_it():
    data = b"II\tI\n1\t0.1\t0.2\n2\t0.3\t0.4\n"
    ecg = text.read(data, UNNAMED_LEADS)
    assert ecg.leads == ("II", "I")
    np.testing.assert_array_equal(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]])
    assert refused(data, BARE) == "leads_mismatch", "I and II would change places"


def test_a_lead_that_is_named_twice_is_named_in_the_error():
    with pytest.raises(RecordError, match="`II`") as caught:
        text.read(b"I,II,II\n1,2,2\n3,4,4\n", UNNAMED_LEADS)
    assert caught.value.hint


@pytest.mark.parametrize("before", ["# " + "x" * 20_000 + "\n", ("# " + "x" * 800 + "\n") * 60])
def test_a_table_behind_long_lines_is_found(before):
    ecg = formats.decode(f"{before}I,II\n0.1,0.2\n0.3,0.4\n".encode(), BARE)
    np.testing.assert_array_equal(ecg.signal_mv, [[0.1, 0.3], [0.2, 0.4]])


def test_a_header_of_a_long_name_is_looked_at_in_no_time():
    for name in ("I" + " " * 50_000 + "I", "time" + " " * 50_000 + "x", "I" + "_" * 50_000):
        assert refused(f"{name},II\n1,2\n3,4\n".encode(), BARE) == "leads_mismatch"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"I,II,III\n",
        b"r 12 500 5000\nr.dat 16 1000/mV 16 0 0 0 0 I\nr.dat 16 1000/mV 16 0 0 0 0 II\n",
        b'<?xml version="1.0"?>\n<a>1,2\n3,4\n</a>',
        b'{"signal": [[\n1,2\n3,4\n]]}',
        b"Sinusrhythmus, Linkstyp.\nNormales EKG.\n",
        b"\xff\xfe\x00\xd8\x00\xd8",
        bytes(range(256)) * 20,
    ],
)
def test_what_is_no_table_is_not_taken_for_one(data):
    assert not text.recognises(data)


def test_the_real_text_file(data_folder):
    """Against numpy's own reader of text."""
    path = data_folder / "formats/text/tereshchenko_testing_ecg.txt"
    expected = np.loadtxt(path, skiprows=6)
    assert formats.recognise(path.read_bytes()).name == "text"
    ecg = text.read(path.read_bytes(), Stated(500.0, "uV", LEADS))
    np.testing.assert_array_equal(ecg.signal_mv, expected.T / 1000)


# --- NumPy


def test_an_npz_with_several_matrices_or_too_much_in_it_is_refused():
    assert refused(of_numpy(None, np.savez, a=SIGNAL, b=SIGNAL)) == "malformed_file"
    assert refused(of_numpy(None, np.savez, a=np.arange(9))) == "malformed_file"
    assert refused(of_numpy(None, np.savez, a=np.array([[object()]], dtype=object))) == "malformed_file"
    assert refused(of_numpy(None, np.savez_compressed, a=np.zeros((12, 1_000_000)))) == "too_large"
    assert refused(of_numpy(np.stack([SIGNAL, SIGNAL]))) == "several_records"
    assert refused(of_numpy(SIGNAL[:11])) == "leads_mismatch"
    assert not npy.recognises(b"PK\3\4" + bytes(26) + b"a.npy")


# --- MATLAB


def test_the_signal_of_a_wfdb_record_needs_its_header(data_folder):
    record = data_folder / "cinc2021/georgia/E00002"
    data = record.with_suffix(".mat").read_bytes()
    assert formats.recognise(data).name == "matlab"
    for stated in (Stated(), Stated(RATE), Stated(RATE, "uV")):
        assert refused(data, stated) == "missing_header"
    np.testing.assert_array_equal(
        matlab.read(data, Stated(RATE, "uV", LEADS)).signal_mv, read_wfdb(str(record)).signal_mv
    )


def test_the_matrix_with_as_many_rows_as_leads_is_the_ecg():
    data = of_matlab(beats=np.zeros((3, 40)), ecg=SIGNAL)
    np.testing.assert_array_equal(matlab.read(data, STATED).signal_mv, SIGNAL)
    assert refused(data, Stated(RATE, "mV")) == "malformed_file"
    assert refused(of_matlab(a=SIGNAL, b=SIGNAL)) == "malformed_file"
    assert refused(of_matlab(names=np.array(LEADS, dtype=object))) == "malformed_file"
    assert refused(of_matlab(a=SIGNAL + 1j)) == "malformed_file"


@pytest.mark.parametrize(
    "beside",
    [
        {"unit": "mV"},
        {"name": "twelve words"},  # as many letters as leads
        {"fs": 500, "z": np.ones((12, 3)) * 1j},
        {"sparse": scipy.sparse.csc_array(np.eye(12))},
    ],
)
@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_no_matrix_of_numbers_is_skipped(beside, version, is_first):
    variables = beside | {"ecg": SIGNAL} if is_first else {"ecg": SIGNAL} | beside
    np.testing.assert_array_equal(matlab.read(of_matlab(**variables, format=version), STATED).signal_mv, SIGNAL)


@pytest.mark.parametrize("kind", ["char", "logical"])
def test_text_of_matlab_7_3_is_no_matrix(kind):
    def write(file):
        file.create_dataset("ecg", data=SIGNAL.T).attrs["MATLAB_class"] = np.bytes_("double")
        file.create_dataset("name", data=np.ones((12, 1), "u2")).attrs["MATLAB_class"] = np.bytes_(kind)

    data = of_hdf5(write, user_block=512)
    np.testing.assert_array_equal(matlab.read(data, STATED).signal_mv, SIGNAL)
    assert refused(data, Stated(RATE, "mV")) == "missing_lead_names"


def test_a_mat_file_that_unpacks_to_a_thousand_times_its_size_is_refused():
    assert refused(of_matlab(a=np.zeros((12, 1_000_000)), do_compression=True)) == "too_large"


# --- HDF5


def test_the_layout_of_sph_is_known():
    ecg = hdf5.read(SPH, Stated())
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.signal_mv.shape) == (LEADS, 500.0, (12, 5000))
    assert hdf5.read(SPH, Stated(sampling_rate_hz=250.0)).sampling_rate_hz == 250.0
    for other in (dataset("ecg", SIGNAL), dataset("signal", np.tile(SIGNAL, 10).astype("f2"))):
        assert refused(of_hdf5(other), Stated()) == "missing_lead_names"


def test_real_sph_files(data_folder):
    for path in sorted((data_folder / "formats/sph_h5").glob("*.h5")):
        ecg = hdf5.read(path.read_bytes(), Stated())
        with h5py.File(path) as file:
            np.testing.assert_array_equal(ecg.signal_mv, file["ecg"][()].astype(np.float64))
        one, two, _, right = ecg.signal_mv[:4]
        assert np.abs(right + (one + two) / 2).max() < 0.002  # aVR is the fourth: only half precision is between


def test_files_are_not_opened_by_links_in_another(tmp_path):
    secret = tmp_path / "secret.h5"
    secret.write_bytes(FILES["hdf5"])

    def linked(file):
        file["soft"] = h5py.SoftLink("/missing")
        file["away"] = h5py.ExternalLink(str(secret), "a/b/signal")

    def virtual(file):
        layout = h5py.VirtualLayout((12, 600), dtype="f8")
        layout[:] = h5py.VirtualSource(str(secret), "a/b/signal", shape=(12, 600))
        file.create_virtual_dataset("signal", layout)

    def external(file):
        file.create_dataset("signal", (12, 600), "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    def circular(file):
        file.create_group("a/b/c/d")
        file["a/b/c/d/up"] = file["a"]

    assert refused(of_hdf5(linked)) == "malformed_file"
    assert refused(of_hdf5(virtual)) == "unsupported_format"
    assert refused(of_hdf5(external)) == "unsupported_format"
    assert refused(of_hdf5(circular)) == "malformed_file"
    assert refused(of_hdf5(dataset("a", np.zeros((12, 4_000_000)), compression="gzip"))) == "too_large"
    assert refused(of_hdf5(dataset("a", SIGNAL, scaleoffset=3))) == "unsupported_format"


def code15(exams=4):
    tracings = np.zeros((exams, 4096, 12), dtype=np.float32)
    for number in range(exams - 1):
        tracings[number, 648:-648] = np.random.default_rng(number).normal(size=(2800, 12)) + 5

    def write(file):
        file["exam_id"] = np.array([*range(101, 100 + exams), 0])
        file["tracings"] = tracings

    return of_hdf5(write), tracings


def test_exams_of_code15_are_read_one_by_one():
    data, tracings = code15()
    file = io.BytesIO(data)
    assert hdf5_traces.exam_ids(file).tolist() == [101, 102, 103, 0]
    ecg = hdf5_traces.read_exam(file, 1, "mV")
    assert (ecg.leads, ecg.sampling_rate_hz) == (LEADS, 400.0)
    np.testing.assert_array_equal(ecg.signal_mv, tracings[1, 648:-648].T.astype(np.float64))
    for row, unit, reason in ((1, None, "missing_unit"), (3, "mV", "no_signal"), (4, "mV", "malformed_file")):
        with pytest.raises(RecordError) as caught:
            hdf5_traces.read_exam(file, row, unit)
        assert caught.value.reason == reason
    assert refused(data) == "several_records"
    with pytest.raises(RecordError):
        hdf5_traces.exam_ids(io.BytesIO(FILES["hdf5"]))


# --- damage


@pytest.mark.parametrize("kind", [*FILES, "sph", "code15"])
@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # of numpy's header parser
def test_damaged_files_are_read_or_refused(kind):
    def read(damaged):
        if kind == "code15":
            hdf5_traces.exam_ids(io.BytesIO(damaged))
            return hdf5_traces.read_exam(io.BytesIO(damaged), 0, "mV")
        reader(kind).recognises(damaged[:4096])
        return reader(kind).read(damaged, STATED)

    data = {"sph": SPH, "code15": code15(2)[0]}.get(kind) or FILES[kind]
    assert refuses_damage(read, data, TRIES)["malformed_file"] > 0


def test_zip_is_what_npz_is():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", TEXTS["comma"])
    assert formats.recognise(buffer.getvalue()) is None


@pytest.mark.parametrize(
    "header", ["I (0.1 mV),II (0.1 mV),V1 (0.1 mV)", "II/mm,I/mm,V1/mm", "I (uV/bit),II (uV/bit),V1 (uV/bit)"]
)
def test_a_header_with_a_unit_that_is_not_read_is_not_overruled(header):
    data = (header + "\n" + "7,2,3\n4,5,-6\n" * 9).encode()
    assert refused(data, Stated(500.0, "mV", ("I", "II", "V1"))) in ("unknown_unit", "leads_mismatch")


def test_a_unit_behind_a_slash_and_a_line_of_units_above_the_names():
    rows = "7,2,3\n4,5,-6\n" * 9
    for header in ("II/uV,I/uV,V1/uV\n", "uV,uV,uV\nII,I,V1\n", "II,I,V1\nuV,uV,uV\n"):
        ecg = text.read((header + rows).encode(), Stated(500.0, "mV"))
        assert ecg.leads == ("II", "I", "V1")
        np.testing.assert_allclose(ecg.signal_mv[:, :2] * 1000, [[7, 4], [2, 5], [3, -6]])


def test_samples_that_count_are_samples_below_names():
    for first in ("1,2,3", "0,1,2"):
        ecg = text.read(f"II,I,V1\n{first}\n4,5,6\n7,8,-9\n".encode(), Stated(500.0, "mV"))
        assert (ecg.leads, ecg.signal_mv.shape) == (("II", "I", "V1"), (3, 3))
    # As pandas numbers columns.
    ecg = text.read(b",0,1,2\n0,4,5,6\n1,7,8,-9\n", Stated(500.0, "mV", ("I", "II", "V1")))
    assert ecg.signal_mv.shape == (3, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Sample Rate,512 hertz", "sampling_rate_mismatch"),
        ("# sampling frequency: 250 Hz", "sampling_rate_mismatch"),
        ("fs = 1 kHz", "sampling_rate_mismatch"),
        ("Unit,µV", "header_mismatch"),
        ("Lead,Lead I", "leads_mismatch"),
        ("Sample Rate,500 hertz", None),
        ("Unit: mV", None),
        ("Lead: II", None),
        ('Device,"Watch6,1"', None),
    ],
)
def test_lines_above_a_table_may_not_contradict_what_is_stated(line, reason):
    data = f"Name,x\n{line}\n\n".encode() + b"".join(b"%.3f\n" % one for one in SIGNAL[0])
    if reason:
        assert refused(data, Stated(500.0, "mV", ("II",))) == reason
    else:
        assert text.read(data, Stated(500.0, "mV", ("II",))).signal_mv.shape == (1, SIGNAL.shape[1])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("sampling_rate_hz", 250.0, "sampling_rate_mismatch"),
        ("fs", 250, "sampling_rate_mismatch"),
        ("units", "uV", "header_mismatch"),
        ("fs", 500, None),
        ("unit", b"mV", None),
        ("units", ["mV", "uV"], None),
    ],
)
@pytest.mark.parametrize("of_file", [True, False])
def test_attributes_of_hdf5_may_not_contradict_what_is_stated(name, value, reason, of_file):
    def write(file):
        file["ecg"] = SIGNAL
        (file if of_file else file["ecg"]).attrs[name] = value

    if reason:
        assert refused(of_hdf5(write), Stated(500.0, "mV", LEADS)) == reason
    else:
        assert hdf5.read(of_hdf5(write), Stated(500.0, "mV", LEADS)).sampling_rate_hz == 500.0


def test_commas_that_may_separate_thousands_are_refused():
    stated = Stated(500.0, "uV")
    assert refused(b"I\tII\n999\t12\n1,234\t-1,050\n998\t7\n", stated) == "malformed_file"
    for row in ("1,23\t-1,050", "0,234\t1,050", "1234,567\t1,050", ",234\t1,050", "1,2345\t-1,050"):
        ecg = text.read(f"I\tII\n999\t12\n{row}\n998\t7\n".encode(), stated)
        assert ecg.signal_mv[1, 1] == pytest.approx(float(row.split("\t")[1].replace(",", ".")) / 1000)


def test_an_npz_by_another_method_is_refused():
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", of_numpy(SIGNAL))
    assert refused(packed.getvalue()) == "malformed_file"
