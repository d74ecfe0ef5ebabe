"""Bodies that are built to stop a server, each of the largest size that it accepts, by name."""

import base64
import gzip
import json
import zipfile

import numpy as np

from mets_ray.ecg.ecg import LEADS
from tests.support.xml_ecgs import aecg, sequence_set, sierra
from tests.support.zips import zipped

JSON, NPY, CSV, ZIP = "application/json", "application/x-npy", "text/csv", "application/zip"
FORM = "multipart/form-data; boundary=cut"
QUERY = {"unit": "uV", "sampling_rate_hz": "10000", "leads": ",".join(LEADS), "prompt_set": "mets:synthetic"}
_ECG = '{"ecg":{"unit":"mV","leads":["I"],"sampling_rate_hz":10000,"signal":'


def _filled(size, head, item, tail):
    """`head`, `item` as often as it fits into `size` bytes, `tail`; the last item without its comma."""
    items = item * ((size - len(head) - len(tail)) // len(item))
    return (head + items.rstrip(",") + tail).encode()


def _keys(size, pattern):
    longest = len(pattern % 10**7) + 1
    return ",".join(pattern % number for number in range(size // longest))


def json_bodies(size):
    """Bodies of /v1/zero-shot."""
    twelve = "[" + ",".join("[" + "0.125,-0.25," * (size // 160) + "0]" for _ in LEADS) + "]"
    ecg = {"unit": "mV", "leads": list(LEADS), "sampling_rate_hz": 10000}
    good = json.dumps({"prompt_set": "mets:synthetic", "ecg": ecg | {"signal": 0}}).replace(
        '"signal": 0', '"signal":' + twelve
    )
    return {
        "an ECG": good.encode(),
        "an ECG with white space": json.dumps(json.loads(good), indent=0).encode()[:size],
        "zeros in one row": _filled(size, _ECG + "[[", "0,", "]]}}"),
        "long numbers": _filled(size, _ECG + "[[", "0.1234567890123456789012345678901234567890,", "]]}}"),
        "one number": _filled(size, _ECG + "[[", "1", "]]}}"),
        "exponents": _filled(size, _ECG + "[[", "1e999999999,", "]]}}"),
        "minus signs": _filled(size, _ECG + "[[", "-", "]]}}"),
        "commas": _filled(size, _ECG + "[[", ",", "]]}}"),
        "NaN": _filled(size, _ECG + "[[", "NaN,", "]]}}"),
        "null in a row": _filled(size, _ECG + "[[", "null,", "]]}}"),
        "strings in a row": _filled(size, _ECG + "[[", '"",', "]]}}"),
        "true in a row": _filled(size, _ECG + "[[", "true,", "]]}}"),
        "rows that end too late": _filled(size, _ECG + "[[1", " ", ""),
        "short rows": _filled(size, _ECG + "[", "[0],", "]}}"),
        "empty rows": _filled(size, _ECG + "[", "[],", "]}}"),
        "objects for rows": _filled(size, _ECG + "[", "{},", "]}}"),
        "nested arrays": b"[" * size,
        "nested arrays that close": _ECG.encode() + b"[" * (size // 2 - 100) + b"]" * (size // 2 - 100) + b"}}",
        "nested objects": _filled(size, "", '{"ecg":', ""),
        "wrongly typed ECGs": _filled(size, '{"ecgs":[', "0,", "]}"),
        "empty ECGs": _filled(size, '{"ecgs":[', "{},", "]}"),
        "labels": _filled(size, _ECG + '[[0]]},"candidate_labels":[', '"a",', "]}"),
        "numbers for labels": _filled(size, _ECG + '[[0]]},"candidate_labels":[', "1,", "]}"),
        "labels in one string": _filled(size, _ECG + '[[0]]},"candidate_labels":"', "a,", '"}'),
        "one label": _filled(size, _ECG + '[[0]]},"candidate_labels":["', "a", '"]}'),
        "escapes": _filled(size, _ECG + '[[0]]},"candidate_labels":["', "\\u00e9", '"]}'),
        "escaped quotes": _filled(size, _ECG + '[[0]]},"candidate_labels":["', '\\"', '"]}'),
        "backslashes": _filled(size, _ECG + '[[0]]},"candidate_labels":["', "\\\\", '"]}'),
        "an open string": _filled(size, _ECG + '[[0]]},"candidate_labels":["', "a", ""),
        "quotes": b'"' * size,
        "leads": _filled(size, '{"ecg":{"unit":"mV","sampling_rate_hz":1,"signal":[[0]],"leads":[', '"I",', "]}}"),
        "many keys": ("{" + _keys(size, '"k%d":0') + "}").encode(),
        "one key many times": _filled(size, "{", '"ecg":0,', "}"),
        "a long key": _filled(size, '{"', "k", '":0}'),
        "white space": b" " * size,
        "white space before an ECG": _filled(size, "", " ", _ECG + "[[0]]}}"),
        "letters": b"x" * size,
        "zero bytes": bytes(size),
        "random bytes": np.random.default_rng(0).bytes(size),
        "not UTF-8": _ECG.encode() + b'[[0]]},"prompt_set":"' + b"\xff" * (size // 8) + b'"}',
        "UTF-16": good[: size // 2 - 2].encode("utf-16"),
        "gzip": gzip.compress(good.encode()),
        # what is left beside the rows is at its own limit
        "a megabyte of keys": ("{" + _keys(2**20 - 100, '"k%d":0') + "}").encode(),
        "a megabyte of null": _filled(2**20, _ECG + "[[", "null,", "]]}}"),
        "a megabyte of labels": _filled(2**20, _ECG + '[[0]]},"candidate_labels":[', '"' + "a" * 300 + '",', "]}"),
        "4000 labels": _filled(30_000, _ECG + '[[0]]},"candidate_labels":[', '"a",', "]}"),
        "9000 keys": ("{" + _keys(90_000, '"%d":0') + "}").encode(),
        "5000 rows": _filled(20_000, _ECG + "[", "[0],", "]}}"),
        "1000 objects": _filled(3_000, _ECG + "[", "{},", "]}}"),
    }


def prompt_sets(size):
    """Bodies of PUT /v1/prompt-sets/{name}, of the one megabyte that it accepts and of more."""
    small = 2**20
    return {
        "numbers for labels": _filled(small, '{"candidate_labels":[', "1,", "]}"),
        "labels": _filled(small, '{"candidate_labels":[', '"a",', "]}"),
        "classes without wordings": ("{" + '"classes":{' + _keys(small - 100, '"k%d":[]') + "}}").encode(),
        "wrongly typed classes": ("{" + '"classes":{' + _keys(small - 100, '"k%d":0') + "}}").encode(),
        "one class many times": _filled(small, '{"classes":{', '"k":0,', "}}"),
        "a class of numbers": _filled(small, '{"classes":{"a":[', "0,", "]}}"),
        "too large": _filled(size, '{"candidate_labels":[', '"a",', "]}"),
    }


def _npy(header, data=b"", version=(1, 0)):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + data


def _header(descr, shape):
    return f"{{'descr':'{descr}','fortran_order':False,'shape':{shape}}}"


def npy_bodies(size):
    random = np.random.default_rng(0)
    whole = random.integers(-99, 99, size // 12 - 100, np.int8)
    return {
        "bytes": _npy(_header("|i1", f"(12,{len(whole)})"), np.tile(whole, 12).tobytes()),
        "int16": _npy(
            _header("<i2", f"(12,{len(whole) // 2})"),
            random.integers(-999, 999, 12 * (len(whole) // 2), np.int16).tobytes(),
        ),
        "64 ECGs": _npy(
            _header("<i2", f"(64,12,{size // 64 // 24 - 10})"), random.bytes(64 * 24 * (size // 64 // 24 - 10))
        ),
        "a header of brackets": _npy("(" * 60_000),
        "a header of minus signs": _npy("-" * 60_000 + "1"),
        "a large header": _npy("[" + "1," * (size // 2 - 100) + "]", version=(2, 0)),
        "a shape of many numbers": _npy(_header("<i2", "(" + "1," * 4000 + ")")),
        "many ECGs": _npy(_header("|i1", f"({size - 1000},1,1)"), bytes(size - 1000)),
    }


def tables(size):
    names = ",".join(LEADS)
    return {
        "rows": _filled(size, names + "\n", ",".join(["0"] * 12) + "\n", ""),
        "rows of one column": _filled(size, "I\n", "0\n", ""),
        "an index": (
            "," + names + "\n" + "".join(f"{n},0,1,2,3,4,5,6,7,8,9,0,1\n" for n in range(size // 33))
        ).encode(),
        "columns": _filled(size, "", "a,", "\n"),
        "columns without names": b"," * size,
        "a long row": _filled(size, names + "\n", "0,", "\n"),
        "a long cell": _filled(size, names + "\n", "1", "\n"),
        "an open quote": _filled(size, names + '\n"', "1", ""),
        "empty lines": _filled(size, names + "\n", "\n", ""),
        "quotes": b'"' * size,
        "words": _filled(size, "I\n", "word\n", ""),
        "NaN": _filled(size, "I\n", "NaN\n", ""),
        "carriage returns": b"\r" * size,
        "random bytes": np.random.default_rng(0).bytes(size),
    }


def zips(size):
    record = np.random.default_rng(0).integers(-99, 99, (120 * 10_000 // 4, 12), np.int16)  # 30 s
    header = f"r 12 10000 {len(record)}\n" + "".join(
        f"r.dat 16 1000/mV 16 0 0 {total} 0 {lead}\n"
        for lead, total in zip(LEADS, record.sum(0, dtype="<i2"), strict=True)
    )
    entry = zipped({"a": b""}, zipfile.ZIP_STORED)
    directory, end = entry.find(b"PK\1\2"), entry.find(b"PK\5\6")
    entries = entry[directory:end] * (size // (end - directory) - 3)
    tail = bytearray(entry[end:])
    tail[12:16] = len(entries).to_bytes(4, "little")
    nested = {"a.csv": b"I\n0\n"}
    for _ in range(15):
        nested = {"a.zip": zipped(nested) + bytes(10**5)}
    return {
        "a record": zipped({"r.hea": header, "r.dat": record.tobytes()}, zipfile.ZIP_STORED),
        "a bomb": zipped({"a.csv": bytes(100 * size)}),
        "a bomb of JSON": zipped({"a.json": json_bodies(size)["zeros in one row"][9:-1]}),
        "64 bombs": zipped({f"{number}.dat": bytes(size // 2) for number in range(64)}),
        "a large bomb": zipped(
            {"r.hea": header, "r.dat": np.random.default_rng(0).bytes(size - 10**6), "b": bytes(4 * size)}
        ),
        "entries": entry[:directory] + entries + bytes(tail),
        "1000 entries": zipped({f"{number}/a": b"" for number in range(1000)}),
        "nested": zipped(nested),
        "long names": zipped({"n" * 60_000 + str(number): b"" for number in range(60)}),
        "a header of comments": zipped({"r.hea": "#\n" * (size // 3), "r.dat": b""}, zipfile.ZIP_STORED),
        "signal lines": zipped({"r.hea": "r 64 100 10\n" + "r.dat 16 1000/mV\n" * (size // 20)}, zipfile.ZIP_STORED),
        "marks of entries": b"PK\1\2" * (size // 4),
        "random bytes": np.random.default_rng(0).bytes(size),
    }


def forms(size):
    part = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n%s\r\n%s\r\n'
    return {
        "parts": b"".join(part % (str(number).encode(), b"", b"") for number in range(size // 90)) + b"--cut--\r\n",
        "headers": part % (b"a.csv", b"X-A: b\r\n" * (size // 8 - 50), b"") + b"--cut--\r\n",
        "a long header": part % (b"a.csv", b"X-A: " + b"b" * (size - 500) + b"\r\n", b"") + b"--cut--\r\n",
        "a long name": part % (b"a" * (size - 500), b"", b"") + b"--cut--\r\n",
        "line ends": part % (b"a.csv", b"", b"\r\n" * (size // 2 - 200)) + b"--cut--\r\n",
        "dashes": part % (b"a.csv", b"", b"\r\n--cu" * (size // 6 - 200)) + b"--cut--\r\n",
        "no end": part % (b"a.csv", b"", b"x" * (size - 500)),
        "boundaries": b"--cut\r\n" * (size // 7),
        "a field": b'--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        + b"x" * (size - 200)
        + b"\r\n--cut--\r\n",
        "random bytes": np.random.default_rng(0).bytes(size),
    }


def xml(size):
    """Files of hospitals, of which XML can ask for most."""
    muse = "<RestingECG><Waveform><WaveformType>Rhythm</WaveformType><LeadData><LeadID>I</LeadID>"
    scaled = "<LeadAmplitudeUnitsPerBit>1</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
    digits = sequence_set({"MDC_ECG_LEAD_I": ["@"]})
    head, tail = aecg(digits).decode().split("@")
    codes = "".join(f"{code:010b}" for code in [0, *range(256, 1022), *[1021] * (size // 3)])
    chunk = int(codes[: len(codes) // 8 * 8], 2).to_bytes(len(codes) // 8, "big")
    bomb = base64.b64encode(len(chunk).to_bytes(4, "little") + bytes(4) + chunk).decode()
    facts = {"dataencoding": "Base64", "compression": "XLI", "numberofleads": 1, "leadlabels": "V1", "resolution": 5}
    facts |= {"durationperchannel": size, "samplespersecond": 1000}
    return {
        "elements": _filled(size, "<RestingECG>", "<a/>", "</RestingECG>"),
        "elements of many names": b"<RestingECG>" + b"".join(b"<a%d/>" % number for number in range(size // 12)),
        "attributes": _filled(size, "<RestingECG>", "<a b='' c=''/>", "</RestingECG>"),
        "elements in elements": _filled(size, "<RestingECG>", "<a>", ""),
        "a long attribute": _filled(size, "<RestingECG a='", "x", "'/>"),
        "a long comment": _filled(size, "<RestingECG><!--", "x", "--></RestingECG>"),
        "a long prolog": _filled(size, "", "<!--x-->", "<RestingECG/>"),
        "references": _filled(size, "<RestingECG>", "&#38;", "</RestingECG>"),
        "laughs": b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "'
        + b"&a;" * (size // 4)
        + b'">]><RestingECG>&b;</RestingECG>',
        "base64": _filled(
            size, muse + scaled + "<WaveFormData>", "AAAA", "</WaveFormData></LeadData></Waveform></RestingECG>"
        ),
        "lines of base64": _filled(
            size, muse + scaled + "<WaveFormData>", "AAAA\n", "</WaveFormData></LeadData></Waveform></RestingECG>"
        ),
        "digits": _filled(size, head, "1 ", tail),
        "long digits": _filled(size, head, "1.2345678901234567890 ", tail),
        "one number": _filled(size, head, "1", tail),
        "a bomb of LZW": sierra(bomb[: size - 2000], attributes=facts),
        "UTF-16": aecg(digits).decode().replace("@", "1 " * (size // 5)).encode("utf-16"),
    }


def all_bodies(size):
    """(name, method, path, query, content type, body) of each."""
    for name, body in json_bodies(size).items():
        path = "/v1/zero-shot/batch" if name.endswith("ECGs") else "/v1/zero-shot"
        yield f"JSON: {name}", "POST", path, {}, JSON, body[:size]
    for name, body in prompt_sets(size).items():
        yield f"prompt set: {name}", "PUT", "/v1/prompt-sets/hostile", {}, JSON, body[:size]
    kinds = {"npy": (NPY, npy_bodies), "CSV": (CSV, tables), "zip": (ZIP, zips), "form": (FORM, forms)}
    kinds["XML"] = ("application/octet-stream", xml)
    for kind, (content_type, bodies) in kinds.items():
        query = QUERY if kind == "npy" else {key: value for key, value in QUERY.items() if key != "leads"}
        for name, body in bodies(size).items():
            path = "/v1/zero-shot/batch" if name.endswith("ECGs") else "/v1/zero-shot"
            yield f"{kind}: {name}", "POST", path, query, content_type, body[:size]
