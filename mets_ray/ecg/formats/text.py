"""CSV, TSV and plain text: a row of numbers per sample, a column per lead, with or without a header of lead names.

Separators, decimal commas and lines before the table are found by content (`text_layout.py`). A header may name the
unit of a column, as `II (mV)`, `II_mV` or in a line below the names (`text_columns.py`); sampling rate, and what else
the table does not say, are stated.
"""

import codecs
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv

from mets_ray.ecg.ecg import Ecg, EcgMeta, check_sampling_rate
from mets_ray.ecg.formats.arrays import in_millivolts, malformed
from mets_ray.ecg.formats.limits import MAX_SIGNALS, check_samples
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.text_columns import MOST_CHARACTERS, column_of
from mets_ray.ecg.formats.text_layout import HEAD_BYTES, Layout, layout_of
from mets_ray.ecg.formats.text_preamble import said_above
from mets_ray.ecg.leads import is_ecg_signal, standard_lead
from mets_ray.errors import RecordError

FORMAT = "text"

_INDEX, _TAIL = "\0index", "\0tail"  # no lead is called like this
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TIME = re.compile(
    r"(?:(?:elapsed[\s_]+)?time|times|timestamp|t|zeit|temps|tiempo)[\s_]*[\[(]?\s*(s|sec|seconds|ms|msec)?\s*[\])]?",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"[\s(\[{/:;,-]")
# A comma that separates no thousands: behind a zero or four digits, or before any other number of digits than three.
_DECIMAL_COMMA = re.compile(rb"(?<!\d)0\d*,|(?<!\d),\d|\d{4},|,\d{0,2}(?!\d)|,\d{4}")
_COUNTERS = ("", "unnamed: 0", "index")  # to_csv(); that read again and written again; reset_index()


def recognises(head: bytes) -> bool:
    """Whether the text that a file begins with holds two rows of numbers."""
    try:
        head = _utf_8(head[: len(head) // 2 * 2]) if head.startswith(_UTF_16) else head
        whole = head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1] or head  # the last line may be cut
        if b"\0" in whole or whole.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
            return False
        layout_of(whole)
    except RecordError:
        return False
    return True


def read(data: bytes, stated: Stated) -> Ecg:
    """The ECG of a table. Columns of times and row numbers are checked against the stated rate and left out.

    Raises RecordError `malformed_file`, `missing_sampling_rate`, `missing_unit`, `missing_lead_names`, `unknown_unit`,
    `implausible_sampling_rate`, `sampling_rate_mismatch`, `header_mismatch`, `leads_mismatch` and `too_large`.
    """
    data = _utf_8(data)
    layout = layout_of(data)
    if layout.decimal == "," and not _DECIMAL_COMMA.search(data, layout.start):
        raise malformed(
            "every comma in the numbers has three digits behind it: it may separate thousands",
            "write the numbers without separators of thousands, and with decimal points",
        )
    check_samples(1, layout.columns * (data.count(b"\n") + 1), len(data))
    stated.check(said_above(layout.before))
    rate = stated.required_rate_hz()
    check_sampling_rate(rate)
    if layout.names:
        table = table_of(data, layout, layout.names)
    else:
        leads = stated.required_leads()
        table = _named_by_number(table_of(data, layout, tuple(map(str, range(layout.columns)))), leads)
    table = _without_times(table, rate)
    columns = [column_of(name) for name in table.column_names]
    kept = [number for number, column in enumerate(columns) if is_ecg_signal(column.name, column.unit)]
    leads = _leads([columns[number].name for number in kept], stated.leads)
    rows = [in_millivolts(table.column(number).to_numpy(), columns[number].required_unit(stated)) for number in kept]
    return Ecg(
        np.stack(rows) if rows else np.empty((0, len(table))),
        leads,
        rate,
        other_signals=tuple(column.name for number, column in enumerate(columns) if number not in kept),
        meta=EcgMeta(format=FORMAT),
    )


def table_of(data: bytes, layout: Layout, names: tuple[str, ...]) -> pa.Table:
    """The numbers of a table, as float64 columns; an empty cell is null.

    An index as pandas writes it, a first column without a name, is checked and left out, and so is the empty last one
    of lines with a separator at their end. Raises RecordError `malformed_file`.
    """
    columns = list(names)
    if len(columns) > 1 and columns[0].lower() in _COUNTERS:
        columns[0] = _INDEX
    if len(columns) > 1 and not columns[-1]:
        columns[-1] = _TAIL
    if len(columns) > MAX_SIGNALS + 3:
        raise malformed(f"the table has {len(columns)} columns; at most {MAX_SIGNALS} leads are read")
    if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise malformed(
            f"the header names several columns {', '.join(f'`{name[:20]}`' for name in twice[:4])}",
            "name each lead once, and leave out copies",
        )
    rows, separator = pa.py_buffer(data).slice(layout.start), layout.separator
    if separator == " ":
        lines = data[layout.start :].splitlines()
        rows, separator = pa.py_buffer(b"\n".join(b"\t".join(line.split()) for line in lines)), "\t"
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(rows),
            pa.csv.ReadOptions(use_threads=False, column_names=columns),
            pa.csv.ParseOptions(delimiter=separator),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.float64()), decimal_point=layout.decimal),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
        raise malformed(
            "a row does not have as many cells as the header, or a cell is not a number",
            "end no line with a comma, and write no text below the header",
        ) from error
    return _without_index(table)


def check_times(time_s: np.ndarray, rate: float) -> None:
    """Raise RecordError `sampling_rate_mismatch` where a column of times does not go up in steps of 1/`rate`."""
    if not rate > 0:
        raise RecordError("sampling_rate_mismatch", f"the sampling rate is {rate:g} Hz")
    if not _are_times(time_s, rate):
        raise RecordError(
            "sampling_rate_mismatch",
            f"the column `time_s` does not increase in steps of 1/{rate:g} s",
            hint="check both",
        )


def _are_times(time_s: np.ndarray, rate: float) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        expected_s = np.arange(len(time_s)) / rate
        # Half a sample: a time column may be rounded to milliseconds; a wrong rate is off by more after a few samples.
        return not len(time_s) or bool(np.all(np.abs(time_s - time_s[0] - expected_s) <= 0.5 / rate + 1e-3))


def _without_index(table: pa.Table) -> pa.Table:
    if _TAIL in table.column_names:
        if table[_TAIL].null_count < len(table):
            raise malformed("the last column has no name", "name each column by its lead")
        table = table.drop_columns([_TAIL])
    if _INDEX in table.column_names:
        if table[_INDEX].null_count < len(table) and not _counts(table[_INDEX].to_numpy()):
            raise malformed(
                "the first column has no name of a lead, and is no index that counts 0, 1, 2, …",
                "write the table without its index (index=False), and call a column of times `time_s`",
            )
        table = table.drop_columns([_INDEX])
    return table


def _counts(index: np.ndarray) -> bool:
    return not len(index) or (index[0] in (0, 1) and np.array_equal(index, np.arange(len(index)) + index[0]))


def _without_times(table: pa.Table, rate: float) -> pa.Table:
    """Without columns of times, in seconds or milliseconds as their names say, or as fits where they do not say it."""
    for name in table.column_names:
        match = _TIME.fullmatch(name.strip()) if len(name) <= MOST_CHARACTERS else None
        if match is None:
            continue
        values, unit = table[name].to_numpy(), (match[1] or "").lower()
        if not (
            (not unit.startswith("m") and _are_times(values, rate))
            or (not unit.startswith("s") and _are_times(values / 1000, rate))
            or (not unit and _counts(values))  # the number of the sample
        ):
            raise RecordError(
                "sampling_rate_mismatch",
                f"the column `{name.strip()[:20]}` does not increase in steps of 1/{rate:g} s",
                hint="state the sampling rate of the table, and give times in s or ms",
            )
        table = table.drop_columns([name])
    return table


def _named_by_number(table: pa.Table, leads: tuple[str, ...]) -> pa.Table:
    """A table without a header: one lead in each column, or a column of times and then one lead each. An empty column
    at an end, where lines begin or end with a separator, is left out if there are more columns than leads."""
    columns = table.num_columns
    for at in (-1, 0):
        number = at % table.num_columns
        if table.num_columns > len(leads) and table.column(number).null_count == len(table):
            table = table.remove_column(number)
    if table.num_columns - len(leads) not in (0, 1):
        raise RecordError(
            "leads_mismatch",
            f"{len(leads)} leads are stated for a table of {columns} columns without a header",
            hint="state one lead for each column",
        )
    return table.rename_columns(leads if table.num_columns == len(leads) else ("time", *leads))


def _leads(names: list[str], stated: tuple[str, ...] | None) -> tuple[str, ...]:
    """The header's names; what is stated where none of them begins with a lead's."""
    if stated is None or tuple(names) == stated:
        return tuple(names)
    if len(names) != len(stated) or any(map(standard_lead, (*names, *(_FIRST_WORD.split(name)[0] for name in names)))):
        raise RecordError(
            "leads_mismatch", f"the header names {len(names)} leads differently from those stated", hint="omit `leads`"
        )
    return stated


def _utf_8(data: bytes) -> bytes:
    """Text in UTF-8; Excel's "Unicode text" is UTF-16, and its CSV has µ in one byte, as Windows-1252 and Latin-1."""
    if not data.startswith(_UTF_16):
        head = data[:HEAD_BYTES]
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a character
        except UnicodeDecodeError:
            return head.decode("latin-1").encode() + data[HEAD_BYTES:]
        return data
    try:
        return data.decode("utf-16").encode()
    except UnicodeDecodeError as error:
        raise malformed("the text is damaged UTF-16") from error
