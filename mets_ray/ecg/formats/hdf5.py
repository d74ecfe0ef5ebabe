"""HDF5: one array of numbers [lead, sample] or [sample, lead], under any name.

HDF5 has no convention for ECGs, so unit, rate and leads are stated. One layout is known by its data set's paper: SPH
(Liu et al. 2022, doi:10.1038/s41597-022-01403-5) has one `ecg` [12, sample] of half precision in each file, in mV at
500 Hz, leads in the standard order, 10 to 60 s long. CODE-15's file of many exams is in `hdf5_traces.py`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.formats.arrays import ecg_of, is_matrix, malformed
from mets_ray.ecg.formats.library import library
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.text_columns import unit_of
from mets_ray.errors import RecordError

FORMAT = "hdf5"

SPH = Stated(500.0, "mV", LEADS)
"""What the paper of the SPH data set says of its files."""

_SPH_SAMPLES = range(5_000, 30_001)
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)  # the signature stands at 0, 512, and then at each power of two
_MOST_OBJECTS = 256
_DEEPEST = 4
_RATE_NAMES = ("sampling_rate_hz", "sampling_rate", "sampling_frequency", "sample_rate", "fs")
_UNIT_NAMES = ("units", "unit")
_FILTERS = {"gzip", "lzf", "szip", None}  # any other would load a plug-in from this machine


def recognises(head: bytes) -> bool:
    """Whether HDF5's signature is at the beginning or behind a user block."""
    return any(head[start : start + len(_SIGNATURE)] == _SIGNATURE for start in _USER_BLOCKS)


def read(data: bytes, stated: Stated) -> Ecg:
    """The one ECG of an HDF5 file; `stated` says its unit, rate and leads unless the file has SPH's layout.

    Attributes that say another rate or unit contradict it. Raises RecordError `missing_library`, `malformed_file`,
    `several_records`, `too_large`, `unsupported_format`, and as `Stated.check` and `arrays.ecg_of`.
    """
    with opened(io.BytesIO(data)) as file:
        found = dict(matrices(file))
        if "tracings" in file and "exam_id" in file:
            raise RecordError(
                "several_records",
                "the file holds many exams (`exam_id`, `tracings`), as CODE-15 stores them",
                hint="prepare it with prepare.source=code15",
            )
        if len(found) != 1:
            raise malformed(
                f"the file holds {len(found)} arrays of numbers with two axes", "keep one array [lead, sample]"
            )
        ((name, dataset),) = found.items()
        if name == "ecg" and _is_sph(dataset):
            stated = Stated(
                stated.sampling_rate_hz or SPH.sampling_rate_hz, stated.unit or SPH.unit, stated.leads or SPH.leads
            )
        stated.check(_said_by({**file.attrs, **dataset.attrs}))
        return ecg_of(numbers(dataset, len(data)), stated, FORMAT)


@contextmanager
def opened(file: Any) -> Iterator[Any]:
    """The `h5py.File` in a binary file object; whatever HDF5 finds wrong with it becomes RecordError `malformed_file`.

    Raises RecordError `missing_library`.
    """
    h5py = library("h5py")
    try:
        with h5py.File(file, "r") as found:
            yield found
    except RecordError:
        raise
    except Exception as error:  # libhdf5 reports by OSError, KeyError, RuntimeError, ValueError, TypeError and others
        raise malformed("this HDF5 file is damaged or truncated") from error


def matrices(group: Any, depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Each array of numbers with two axes, by its path, in the file itself.

    Links to other files are not followed, nor links to links: a file may name any path of this machine.
    """
    h5py = library("h5py")
    if len(group) > _MOST_OBJECTS:
        raise RecordError("unsupported_format", f"a group of the HDF5 file holds more than {_MOST_OBJECTS} objects")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        one = group[name]
        if isinstance(one, h5py.Group) and depth < _DEEPEST:
            yield from ((f"{name}/{below}", dataset) for below, dataset in matrices(one, depth + 1))
        elif isinstance(one, h5py.Dataset) and one.dtype.kind in "iuf" and is_matrix(one.shape or ()):
            yield name, one


def numbers(dataset: Any, size: int) -> np.ndarray:
    """All numbers of a `h5py.Dataset`, once it is known that they fit a file of `size` bytes.

    Raises RecordError `too_large`, and `unsupported_format` for numbers in other files or behind other filters.
    """
    check_storage(dataset)
    check_samples(min(dataset.shape), max(dataset.shape), size)
    if dataset.chunks:
        check_samples(1, int(np.prod(dataset.chunks, dtype=object)), size)
    values: np.ndarray = dataset[()]
    return values


def check_storage(dataset: Any) -> None:
    """Raise RecordError `unsupported_format` for numbers in other files or behind filters that HDF5 does not have."""
    if dataset.is_virtual or dataset.external:
        raise RecordError(
            "unsupported_format", "the HDF5 file refers to numbers in other files", hint="copy them into it"
        )
    known = dataset.compression in _FILTERS and dataset.scaleoffset is None
    if not known or dataset.id.get_create_plist().get_nfilters() > _known_filters(dataset):
        raise RecordError(
            "unsupported_format", "the HDF5 file is compressed by a filter that is not read", hint="compress it by gzip"
        )


def _said_by(attributes: dict[str, Any]) -> Stated:
    """Rate and unit, where attributes of usual names say them. Not part of any standard, so they are only compared."""

    def first(names: tuple[str, ...], kinds: str) -> Any:
        values = (np.asarray(attributes[name]) for name in names if name in attributes)
        return next((one.reshape(-1)[0] for one in values if one.size == 1 and one.dtype.kind in kinds), None)

    rate, unit = first(_RATE_NAMES, "iuf"), first(_UNIT_NAMES, "OSU")
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit
    return Stated(None if rate is None else float(rate), unit_of(unit) if isinstance(unit, str) else None)


def _known_filters(dataset: Any) -> int:
    return int(dataset.compression is not None) + int(dataset.shuffle) + int(dataset.fletcher32)


def _is_sph(dataset: Any) -> bool:
    return (
        dataset.dtype == np.float16
        and dataset.shape[0] == len(LEADS)
        and dataset.shape[1] in _SPH_SAMPLES
        and not len(dataset.attrs)
    )
