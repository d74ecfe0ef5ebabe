"""One module for each file format of ECGs: `recognises` its first bytes, and `read` turns a whole file into an `Ecg`.

`FORMATS` is the table of them. A file is what its content says; its name is not looked at. Files come from strangers:
a reader checks what a file asks for before it allocates memory, and raises RecordError and nothing else. WFDB, whose
records are several files, is in `ecg/wfdb.py`.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.formats.stated import Stated
from mets_ray.errors import RecordError

HEAD_BYTES = 4096
"""How much of a file `recognises` sees."""

_HEAD_OF_TEXT = 64 * 1024  # where that is not enough: long comments before an XML's root, or lines before a table


@dataclass(frozen=True)
class Format:
    """name: of the module in this package, and what `EcgMeta.format` says. title: for people. has_header: whether a
    file says its own leads, unit and sampling rate; one that does not takes them from `Stated`. media_types: under
    which it may be sent over HTTP, besides application/octet-stream. is_text: parsing it takes many times its size."""

    name: str
    title: str
    has_header: bool = True
    media_types: tuple[str, ...] = ()
    is_text: bool = False

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"{__name__}.{self.name}")


# In the order in which a file's first bytes are compared: a format with a signature of its own comes before one that
# is recognised by its structure. MATLAB 7.3 is HDF5 with a MATLAB signature before it. Text comes last.
_XML = ("application/xml", "text/xml")
FORMATS = (
    Format("dicom", "DICOM ECG", media_types=("application/dicom",)),
    Format("scp", "SCP-ECG"),
    Format("edf", "EDF, EDF+, BDF"),
    Format("ishne", "ISHNE Holter"),
    Format("mfer", "MFER"),
    Format("aecg", "HL7 aECG", media_types=_XML, is_text=True),
    Format("muse", "GE MUSE XML", media_types=_XML, is_text=True),
    Format("sierra", "Philips Sierra XML", media_types=_XML, is_text=True),
    Format("matlab", "MATLAB", has_header=False),
    Format("hdf5", "HDF5", has_header=False),
    Format("npy", "NPY, NPZ", has_header=False),
    Format("text", "CSV, TSV, text", has_header=False, is_text=True),
)


def recognise(data: bytes) -> Format | None:
    """The format of a file, from its first `HEAD_BYTES`, of text 64 KiB; None where it is none of `FORMATS`."""
    found = _first(FORMATS, data[:HEAD_BYTES])
    if found is None and len(data) > HEAD_BYTES:
        found = _first([one for one in FORMATS if one.is_text], data[:_HEAD_OF_TEXT])
    return found


def _first(among: Sequence[Format], head: bytes) -> Format | None:
    return next((one for one in among if one.module.recognises(head)), None)


def decode(data: bytes, stated: Stated) -> Ecg:
    """The ECG of a whole file. `stated` counts only for a format without a header.

    Raises RecordError `unsupported_format` for what is none of `FORMATS`, `missing_library` where the format needs the
    extra `clinical`, and each reader's own.
    """
    found = recognise(data)
    if found is None:
        raise RecordError(
            "unsupported_format",
            f"these {len(data)} bytes are in no format that can be read",
            hint=f"give a WFDB record by its .hea (or in a ZIP), or one of {', '.join(one.title for one in FORMATS)}",
        )
    ecg: Ecg = found.module.read(data) if found.has_header else found.module.read(data, stated)
    return ecg
