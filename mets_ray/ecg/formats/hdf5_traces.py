"""CODE-15's HDF5 files, of which each holds thousands of exams: read one by one, from a file that stays open.

Ribeiro et al. 2021, doi:10.5281/zenodo.4916206: `exam_id` [exam] and `tracings` [exam, 4096, 12] at 400 Hz, leads DI,
DII, DIII, AVR, AVL, AVF, V1 to V6; shorter recordings stand in the middle, with zeros on both sides.

The unit is not known. The record on Zenodo names none, and the authors' "at the scale 1e-4V: so if the signal is in V
it should be multiplied by 1000" contradicts itself (https://github.com/antonior92/ecg-age-prediction/issues/5 compares
amplitudes, which fit neither). So it is stated, as everywhere.
"""

import io
from typing import Any

import numpy as np
from jaxtyping import Int64

from mets_ray.ecg.ecg import LEADS, Ecg, EcgMeta
from mets_ray.ecg.formats.arrays import in_millivolts, malformed
from mets_ray.ecg.formats.hdf5 import check_storage, opened
from mets_ray.ecg.formats.limits import MAX_SAMPLES
from mets_ray.errors import RecordError

FORMAT = "hdf5"
SAMPLING_RATE_HZ = 400.0


def exam_ids(file: io.IOBase) -> Int64[np.ndarray, " exam"]:
    """The ids of a file's exams, row by row; 0 marks a row without an exam, which CODE-15 has at the end of a file.

    file: open for reading, and able to seek. Raises RecordError `malformed_file` and `missing_library`.
    """
    with opened(file) as found:
        ids = _array(found, "exam_id", 1)
        if ids.dtype.kind not in "iu" or len(ids) > MAX_SAMPLES:
            raise malformed("`exam_id` is no list of whole numbers")
        values: Int64[np.ndarray, " exam"] = ids[()].astype(np.int64)
        return values


def read_exam(file: io.IOBase, row: int, unit: str | None) -> Ecg:
    """The exam in `row` of `tracings`, without the zeros around it.

    unit: of the samples, one of `ecg.UNITS`. Raises RecordError `malformed_file`, `no_signal` (nothing but zeros),
    `missing_unit`, `unknown_unit` and `missing_library`.
    """
    with opened(file) as found:
        tracings = _array(found, "tracings", 3)
        count, length, leads = tracings.shape
        if leads != len(LEADS) or not 0 <= row < count:
            raise malformed(f"`tracings` is {count} × {length} × {leads}, without a row {row} of 12 leads")
        if any(np.prod(part, dtype=object) > MAX_SAMPLES for part in ((length, leads), tracings.chunks or ())):
            raise RecordError("too_large", f"an exam of `tracings` has {length} samples")
        samples: np.ndarray = tracings[row]
    recorded = np.flatnonzero(np.any(samples != 0, axis=1))
    if len(recorded) == 0:
        raise RecordError("no_signal", "the exam holds nothing but zeros")
    signal_mv = in_millivolts(samples[recorded[0] : recorded[-1] + 1].T, unit)
    return Ecg(signal_mv, LEADS, SAMPLING_RATE_HZ, meta=EcgMeta(format=FORMAT))


def _array(file: Any, name: str, axes: int) -> Any:
    if name not in file or getattr(file[name], "ndim", None) != axes or file[name].dtype.kind not in "iuf":
        raise malformed(f"the HDF5 file has no `{name}` of numbers with {axes} axes, as CODE-15's files do")
    check_storage(file[name])
    return file[name]
