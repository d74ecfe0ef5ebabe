"""JSON that holds ECGs: Arrow reads the rows of numbers, pydantic the little that is left.

pydantic reads a document in one call that keeps all other threads waiting, and 8 MB of `0,` become 250 MB of objects.
So every array that holds nothing but numbers is taken out of the text first, and a reference to it takes its place.
Arrow reads it without holding the interpreter, in eight times its size. What is left has to fit into
`MAX_OTHER_BYTES`, and the strings, objects and arrays in it are counted before they are parsed.

Arrow does not read the whole document: pyarrow 26 crashes on a document that is `null`.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64
from pydantic import BaseModel, FailFast, Strict, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from mets_ray.errors import RequestError

_Model = TypeVar("_Model", bound=BaseModel)

MAX_OTHER_BYTES = 1024 * 1024
"""Most of a JSON body that is not a row of numbers."""

_PIECE = 256 * 1024  # a call on so much text takes well below a millisecond, and other threads run in between
_NUMBERS = b"0123456789+-.eE, \t\r\n" + b"NaInfity"  # NaN, Infinity: read here, refused by `preprocess` with its reason
# What Arrow reads as a number and JSON does not know: 05, .5, 5., +5. `3,000` would otherwise be two samples.
_NO_JSON = r"(^|[,\s])-?0[0-9]|(^|[^0-9])\.|\.($|[^0-9])|(^|[^eE])\+"
_BACKSLASH = 92
_MAX_COMMAS = 100_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _row(value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    # Only a reference is an array of one int: every array of numbers that a client sends has been taken out.
    if isinstance(info.context, list) and isinstance(value, list) and len(value) == 1 and type(value[0]) is int:
        return info.context[value[0]]
    return read(value)


Row = Annotated[list[Annotated[float, Strict()]], FailFast(), WrapValidator(_row)]
"""A row of samples in a model of `parse`: there it is an array float64 [sample]."""


def parse(model: type[_Model], body: bytes, *, max_arrays: int, max_objects: int, max_strings: int) -> _Model:
    """`body` as a `model`, whose arrays of numbers are of the type `Row`. A byte order mark is left out (RFC 8259).

    Raises pydantic's ValidationError for JSON that does not fit, RequestError 400 for another encoding and for a row
    with something that is no number, 413 for more than `MAX_OTHER_BYTES` beside the rows, 422 for more arrays, objects
    or strings than given and for a repeated key.
    """
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or body[:2].count(0):
        raise RequestError(400, "malformed_body", "the JSON is in UTF-16", hint="JSON is sent in UTF-8 (RFC 8259)")
    for character, most, reason in (
        (b"[", max_arrays, "arrays"),
        (b"{", max_objects, "objects"),
        (b'"', 2 * max_strings, "strings"),
    ):
        if _count_exceeds(body, character, most):
            raise RequestError(422, f"too_many_{reason}", f"the JSON holds more {reason} than any request needs")
    text, rows = _take_out_rows(body)
    # A name that the model does not know is a fault of its own, so their number is bounded as well.
    if _count_exceeds(text, b":", max_objects + max_strings) or _count_exceeds(text, b",", _MAX_COMMAS):
        raise RequestError(422, "too_many_values", "the JSON holds more values than any request needs")
    _check_keys(text)
    return model.model_validate_json(text, context=rows)


def _check_keys(text: bytes) -> None:
    """Raise RequestError 422 for a key that stands twice in an object: a parser keeps the last and drops the others."""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RequestError(
                422, "repeated_key", f"{twice[:80]!r} stands twice in an object", hint="give each key once"
            )

    with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is told by who reads it
        json.loads(text, object_pairs_hook=unique)


def _count_exceeds(body: bytes, character: bytes, most: int) -> bool:
    count = 0
    for start in range(0, len(body), _PIECE):
        count += body.count(character, start, start + _PIECE)
        if count > most:
            return True
    return False


def _take_out_rows(body: bytes) -> tuple[bytes, list[Float64[np.ndarray, " sample"]]]:
    """The JSON with `[index]` in the place of each array of numbers, and these arrays."""
    rows: list[bytes] = []
    kept: list[bytes] = []
    find_quote, find_open, find_close = (_finder(body, character) for character in (b'"', b"[", b"]"))
    begin = place = 3 if body.startswith(_BYTE_ORDER_MARK) else 0
    others = 0
    while (bracket := find_open(place)) < len(body):
        quote = find_quote(place)
        if quote < bracket:
            place = _string_end(body, quote)
            continue
        place = bracket + 1
        close = find_close(place)
        if close < find_open(place) and _is_row(body, place, close):
            kept += [body[begin:place], str(len(rows)).encode()]
            others += place - begin
            if others > MAX_OTHER_BYTES:
                break
            rows.append(body[place:close])
            begin = place = close
    if others + len(body) - begin > MAX_OTHER_BYTES:
        raise RequestError(
            413,
            "too_large",
            f"more than {MAX_OTHER_BYTES} bytes of the JSON are not rows of samples",
            hint="send each lead as an array of numbers, without null and without quotes",
        )
    kept.append(body[begin:])
    return b"".join(kept), _numbers(rows)


def _finder(body: bytes, character: bytes) -> Callable[[int], int]:
    """Where `character` is next, `len(body)` if nowhere. Its places are asked for in rising order: one pass in all."""
    found = -1

    def find(place: int) -> int:
        nonlocal found
        if found < place:
            found = body.find(character, place)
            found = len(body) if found < 0 else found
        return found

    return find


def _string_end(body: bytes, quote: int) -> int:
    """The place after the string that begins at `quote`."""
    end = quote
    while (end := body.find(b'"', end + 1)) != -1:
        before = end
        while body[before - 1] == _BACKSLASH:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 1
    return len(body)


def _is_row(body: bytes, start: int, stop: int) -> bool:
    """Whether `body[start:stop]` holds nothing but what numbers consist of, and not only white space."""
    if stop == len(body):
        return False
    is_blank = True
    for place in range(start, stop, _PIECE):
        piece = body[place : min(place + _PIECE, stop)]
        if piece.translate(None, _NUMBERS):
            return False
        is_blank = is_blank and piece.isspace()
    return not is_blank


def _numbers(rows: list[bytes]) -> list[Float64[np.ndarray, " sample"]]:
    """The numbers of each row, which is written like `1.5, 2, -3e4`. Raises RequestError 400."""
    if not rows:
        return []
    ends = np.cumsum([row.count(b",") + 1 for row in rows])
    text = b",".join(rows)  # all in one call, which costs as much as a row
    rows.clear()
    has_space = any(space in text for space in (b" ", b"\n", b"\r", b"\t"))
    whole = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, len(text)], np.int32)), pa.py_buffer(text))
    if pc.match_substring_regex(whole, _NO_JSON)[0].as_py():
        raise _no_number()
    words = pc.split_pattern(whole, ",").flatten()
    if has_space:
        words = pc.ascii_trim_whitespace(words)
    try:
        numbers = pc.cast(words, pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise _no_number() from error
    return np.split(numbers, ends[:-1])


def _no_number() -> RequestError:
    return RequestError(400, "malformed_body", "a row of samples contains something that is not a JSON number")
