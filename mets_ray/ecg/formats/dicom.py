"""DICOM waveforms: 12-lead, general and ambulatory ECG. PS3.3 C.10.8 to C.10.10; pydicom reads the elements.

Representative (median) beats beside the rhythm are left out. Groups of leads that were recorded one after another, as
on paper, are put on one time line with NaN between.
"""

import io
import zlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import Ecg, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats import dicom_meta
from mets_ray.ecg.formats.facts import refuse_damaged
from mets_ray.ecg.formats.lead_codes import LEAD_CODES
from mets_ray.ecg.formats.library import library
from mets_ray.ecg.formats.limits import MAX_BYTES, check_samples
from mets_ray.ecg.formats.placing import place
from mets_ray.ecg.leads import is_ecg_signal, standard_lead
from mets_ray.errors import RecordError

FORMAT = "dicom"

_MAGIC = slice(128, 132)
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1".ljust(len(_DEFLATED), b"\0")
_META_LENGTH = slice(140, 144)  # the value of (0002,0000), which comes first: bytes of the meta group behind it
_MAX_INFLATION = 16  # deflate takes about 6 of 16 bits for a sample of an ECG
_ANY_INFLATED = 4 * 1024**2
_MAX_ITEMS = 200_000  # items of all sequences: a long resting ECG with its annotations has 2,000
_ITEM = b"\xfe\xff\x00\xe0"

# PS3.3 C.10.9.1.5. The companded kinds, MB and AB, are for sound.
_SAMPLES = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "i2", (16, "US"): "u2", (32, "SL"): "i4", (32, "UL"): "u4"}

# Labels of groups that are no rhythm; WaveformOriginality DERIVED alone may also be a filtered rhythm.
_BEATS = ("MEDIAN", "REPRESENTATIVE", "AVERAGE", "TEMPLATE", "DOMINANT")


@dataclass(frozen=True)
class _Channel:
    """One lead; `start` is the sample number of its first sample."""

    name: str
    start: int
    signal_mv: Float[np.ndarray, " sample"]


@dataclass(frozen=True)
class _Group:
    """number: its place in the file, from 1."""

    number: int
    rate_hz: float
    channels: tuple[_Channel, ...]
    definitions: tuple[Any, ...]
    others: tuple[str, ...]


def recognises(head: bytes) -> bool:
    """Part 10: a preamble of 128 bytes, then DICM."""
    return head[_MAGIC] == b"DICM"


def read(data: bytes) -> Ecg:
    """All leads of the rhythm, with the statements, the person and the filters that the file names.

    A second recording of the same leads is named in `Ecg.other_signals`. Padding values are NaN. Raises RecordError
    `unreadable_file`, `truncated_file`, `unsupported_format`, `too_large`, `no_ecg_lead`, `missing_unit`,
    `unknown_unit`, `implausible_sampling_rate` and `missing_library`.
    """
    pydicom = library("pydicom")
    with refuse_damaged("DICOM", Exception):  # a damaged element makes pydicom raise errors of many kinds
        dataset = _dataset(pydicom, data)
        little_endian = dataset.original_encoding[1] is not False
        rhythm = _rhythm(list(dataset.get("WaveformSequence") or []))
        groups = [_group(item, number, little_endian, len(data)) for number, item in rhythm]
        others = [name for group in groups for name in group.others]
        groups = sorted((group for group in groups if group.channels), key=lambda group: -len(group.channels))
        if not groups:
            raise RecordError("no_ecg_lead", "the DICOM file holds no waveform of an ECG lead")
        rate = groups[0].rate_hz
        check_sampling_rate(rate)
        leads: list[_Channel] = []
        # A strip of II below the 12 leads is there already, and so are the leads of a second recording.
        for group in groups:
            names = {lead.name for lead in leads}
            new = [channel for channel in group.channels if channel.name not in names]
            if new and group.rate_hz != rate:
                raise RecordError("unsupported_format", f"its leads have {rate:g} and {group.rate_hz:g} Hz")
            leads += new
            if not new and len(group.channels) == len(groups[0].channels):  # no strip, but another recording
                others.append(f"waveform {group.number}")
        return Ecg(
            place([(lead.start, lead.signal_mv) for lead in leads], len(data)),
            tuple(lead.name for lead in leads),
            rate,
            other_signals=tuple(others),
            meta=dicom_meta.meta(dataset, groups[0].definitions, FORMAT),
        )


def _dataset(pydicom: ModuleType, data: bytes) -> Any:
    if data.count(_ITEM) > _MAX_ITEMS:  # each becomes an object of a kilobyte
        raise RecordError("too_large", f"the DICOM file has more than {_MAX_ITEMS} items")
    # What breaks a rule of DICOM is read as it stands. pydicom would print it, and it may be a name.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    wanted = ["WaveformSequence", *dicom_meta.KEYWORDS]
    dataset = pydicom.dcmread(io.BytesIO(_inflated(data)), specific_tags=wanted)
    if "WaveformSequence" not in dataset:
        raise RecordError("no_ecg_lead", "the DICOM file has no waveform", hint="images of ECGs cannot be read")
    return dataset


def _inflated(data: bytes) -> bytes:
    """The file with its data set unpacked; pydicom would unpack a small file to any size."""
    end = _META_LENGTH.stop + int.from_bytes(data[_META_LENGTH], "little")
    head = data[: min(end, 4096)]
    if _DEFLATED not in head:
        return data
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data[end:], min(MAX_BYTES, max(_ANY_INFLATED, _MAX_INFLATION * len(data))))
    except zlib.error as error:
        raise RecordError("unreadable_file", "the deflated DICOM data set cannot be unpacked") from error
    if not unpacker.eof:
        raise RecordError("too_large", f"the {len(data)} bytes of deflated DICOM unpack to too much, or end too early")
    return head.replace(_DEFLATED, _PLAIN) + plain


def _rhythm(items: list[Any]) -> list[tuple[int, Any]]:
    """The groups that hold a rhythm, each with its number from 1: the original ones, or where there are none the
    derived ones, but no beats."""
    rhythm = [
        (number, item)
        for number, item in enumerate(items, start=1)
        if not any(word in str(item.get("MultiplexGroupLabel") or "").upper() for word in _BEATS)
    ]
    originals = [(number, item) for number, item in rhythm if item.get("WaveformOriginality") != "DERIVED"]
    if items and not rhythm:
        raise RecordError("no_ecg_lead", "the DICOM file holds representative beats and no rhythm")
    return originals or rhythm


def _group(item: Any, group_number: int, little_endian: bool, num_bytes: int) -> _Group:
    num_channels, num_samples = int(item.NumberOfWaveformChannels), int(item.NumberOfWaveformSamples)
    bits, kind = int(item.WaveformBitsAllocated), str(item.WaveformSampleInterpretation)
    if (bits, kind) not in _SAMPLES:
        raise RecordError("unsupported_format", f"its samples have {bits} bits and are `{kind[:8]}`")
    dtype = np.dtype(_SAMPLES[bits, kind]).newbyteorder("<" if little_endian else ">")
    definitions = tuple(item.ChannelDefinitionSequence)
    if num_channels != len(definitions):
        raise RecordError("unreadable_file", f"{num_channels} channels, and {len(definitions)} definitions of channels")
    raw = _bytes(item, "WaveformData", dtype, little_endian)
    check_samples(num_channels, num_samples, num_bytes)
    if len(raw) < num_channels * num_samples * dtype.itemsize:
        raise RecordError("truncated_file", f"{len(raw)} bytes for {num_channels} channels of {num_samples} samples")
    stored = np.frombuffer(raw, dtype, num_channels * num_samples).reshape(num_samples, num_channels)
    padding = _padding(item, dtype, little_endian)
    rate = float(item.SamplingFrequency)
    check_sampling_rate(rate)
    begins = float(item.get("MultiplexGroupTimeOffset") or 0) / 1000 * rate
    channels, kept, others = [], [], []
    for number, definition in enumerate(definitions):
        name, unit = _lead_name(definition, number), _unit(definition)
        if not is_ecg_signal(name, unit):
            others.append(name)
            continue
        column = stored[:, number]
        signal = _millivolts(column, definition, name, unit)
        if padding is not None:
            signal[column == padding] = np.nan
        channels.append(_Channel(name, round(begins + _skew(definition, rate)), signal))
        kept.append(definition)
    return _Group(group_number, rate, tuple(channels), tuple(kept), tuple(others))


def _bytes(item: Any, keyword: str, dtype: np.dtype[Any], little_endian: bool) -> bytes:
    """Samples as they are stored. In the words (OW) of a big-endian file, two samples of 8 bits have changed places:
    PS3.5 7.3 and A.3."""
    raw = bytes(item[keyword].value)
    if little_endian or dtype.itemsize > 1 or item[keyword].VR != "OW":
        return raw
    return np.frombuffer(raw, np.uint16, len(raw) // 2).byteswap().tobytes()


def _padding(item: Any, dtype: np.dtype[Any], little_endian: bool) -> Any:
    """What stands for a sample that was not taken; None where the file names nothing."""
    value = item.get("WaveformPaddingValue")
    if value is None or isinstance(value, int):
        return value
    raw = _bytes(item, "WaveformPaddingValue", dtype, little_endian)
    return np.frombuffer(raw, dtype, 1)[0] if len(raw) >= dtype.itemsize else None


def _lead_name(definition: Any, number: int) -> str:
    """By the code of the channel's source, else by what its meaning or the channel's label says."""
    source = (definition.get("ChannelSourceSequence") or [None])[0]
    code = str(source.get("CodeValue") or "") if source is not None else ""
    # SCPECG writes 5.6.3-9-1, MDC 2:1.
    last = code.removeprefix("5.6.3-9-").removeprefix("2:")
    of_standard = int(last) if last != code and last.isdecimal() else 0  # 0: unspecified lead
    if of_standard in LEAD_CODES:
        return LEAD_CODES[of_standard]
    meaning = str(source.get("CodeMeaning") or "") if source is not None else ""
    label = str(definition.get("ChannelLabel") or "")
    if of_standard:  # another lead, such as Frank's I or a derived II, which a label may call I and II
        return meaning if meaning and not standard_lead(meaning) else f"ECG lead of code {code}"
    for name in (code, meaning, meaning.partition("(")[0], meaning.partition(",")[0], label):
        if lead := standard_lead(name):
            return lead
    return meaning or label or f"channel {number + 1}"


def _unit(definition: Any) -> str | None:
    units = definition.get("ChannelSensitivityUnitsSequence")
    return str(units[0].CodeValue) if units else None


def _millivolts(column: Any, definition: Any, name: str, unit: str | None) -> Float[np.ndarray, " sample"]:
    sensitivity = definition.get("ChannelSensitivity")
    if sensitivity is None or unit is None:
        raise RecordError("missing_unit", f"{name} has no sensitivity, so its samples have no unit")
    correction = definition.get("ChannelSensitivityCorrectionFactor")
    signal = column * (float(sensitivity) * (1.0 if correction is None else float(correction)))
    signal += float(definition.get("ChannelBaseline") or 0)
    return to_millivolts(signal, unit)


def _skew(definition: Any, rate: float) -> float:
    """Samples by which a channel begins after its group: channels that share a converter take turns."""
    seconds = float(definition.get("ChannelTimeSkew") or 0) + float(definition.get("ChannelOffset") or 0)
    return float(definition.get("ChannelSampleSkew") or 0) + seconds * rate
