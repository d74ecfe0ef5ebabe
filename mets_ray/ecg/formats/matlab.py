"""MATLAB .mat files: versions 4 to 7, and 7.3, which is HDF5.

PhysioNet's `val` is the raw signal of a WFDB record: its gains and leads are in the header beside it.
"""

import io
from collections.abc import Sequence
from typing import Any

from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.formats import hdf5, matlab_variables
from mets_ray.ecg.formats.arrays import ecg_of, is_matrix, malformed
from mets_ray.ecg.formats.stated import Stated
from mets_ray.errors import RecordError

FORMAT = "matlab"

_WFDB_NAME = "val"
_V73_MARK = b"\0\2IM"  # at byte 124: version 2


def recognises(head: bytes) -> bool:
    """Whether a file begins as one of the three formats; version 4 has no signature but a strict header."""
    return _is_v73(head) or matlab_variables.is_v5(head) or matlab_variables.is_v4(head)


def read(data: bytes, stated: Stated) -> Ecg:
    """The one ECG of a .mat file: its only matrix, or the only one with as many rows or columns as there are leads.

    Raises RecordError `missing_header` for a WFDB record's signal file about which too little is stated,
    `malformed_file`, `too_large`, `unsupported_format`, and as `arrays.ecg_of`.
    """
    if _is_v73(data):
        return _read_v73(data, stated)
    found = {name: matrix for name, matrix in matlab_variables.matrices(data).items() if is_matrix(matrix.shape)}
    name = _chosen({name: matrix.shape for name, matrix in found.items()}, stated.leads)
    _require_header(name, stated)
    return ecg_of(found[name], stated, FORMAT)


def _read_v73(data: bytes, stated: Stated) -> Ecg:
    with hdf5.opened(io.BytesIO(data)) as file:
        found = {name: one for name, one in hdf5.matrices(file) if _is_of_numbers(one)}
        name = _chosen({path: dataset.shape for path, dataset in found.items()}, stated.leads)
        _require_header(name, stated)
        # MATLAB stores by columns: its [lead, sample] is HDF5's [sample, lead].
        return ecg_of(hdf5.numbers(found[name], len(data)).T, stated, FORMAT)


def _is_of_numbers(dataset: Any) -> bool:
    """MATLAB stores text and logical values as integers too, and says so beside them."""
    kind = dataset.attrs.get("MATLAB_class", b"")
    return bytes(kind) not in (b"char", b"logical") if isinstance(kind, bytes) else True


def _chosen(shapes: dict[str, tuple[int, ...]], leads: Sequence[str] | None) -> str:
    fitting = [name for name, shape in shapes.items() if leads is None or len(leads) in shape]
    for names in (list(shapes), fitting, [name for name in fitting if name == _WFDB_NAME]):
        if len(names) == 1:
            return names[0]
    raise malformed(
        f"the .mat file holds {len(shapes)} matrices of numbers, {len(fitting)} of them with a row or column per lead",
        "save one matrix of leads and samples",
    )


def _require_header(name: str, stated: Stated) -> None:
    if name == _WFDB_NAME and None in (stated.leads, stated.unit, stated.sampling_rate_hz):
        raise RecordError(
            "missing_header",
            "`val` is the signal file of a WFDB record, whose leads, gains and sampling rate are in its header",
            hint="read the record by its .hea, or send both in a ZIP; or state sampling_rate_hz, unit and leads",
        )


def _is_v73(head: bytes) -> bool:
    return head[124:128] == _V73_MARK and hdf5.recognises(head[:4096])
