"""Long recordings: a body goes to a temporary file while it arrives, and its windows are read from there.

Memory holds a few windows of a NumPy array, whatever its length. Every other format is decoded whole, one body at a
time, and its signal goes to a temporary file as well. The files have no name, so nothing is left behind.
"""

import asyncio
import contextlib
import mmap
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, TypeVar

import numpy as np
from fastapi import Request
from jaxtyping import Int16

from mets_ray.ecg.ecg import Ecg, check_sampling_rate
from mets_ray.ecg.formats.arrays import in_millivolts
from mets_ray.ecg.preprocess import SignalConfig, preprocess, samples_used
from mets_ray.ecg.timeline import first_sample
from mets_ray.errors import RecordError, RequestError
from mets_ray.serve import messages
from mets_ray.serve.bodies import (
    BodyLimits,
    BodyParameters,
    check_array,
    decode_body,
    media_type,
    npy_array,
    parse_json,
)
from mets_ray.serve.reading import body_parts
from mets_ray.serve.settings import MIB, WORDINGS_PER_CLASS, ServeConfig

_T = TypeVar("_T")

_THREADS = 2  # that write bodies to disk and cut windows
_WRITE_BYTES = MIB
_SILENCE_S = 10.0  # between two parts of a body
_HINT = "send int16 as application/x-npy, or a part of the recording"
_MAGIC = {b"\x93NUMPY": "application/x-npy", b"PK\x03\x04": "application/zip"}
_UNNAMED = ("", "application/octet-stream")


@dataclass(frozen=True)
class Recording:
    """A recording whose samples lie on disk. `frame` is its ECG without samples; `samples` [lead, sample] in `unit`."""

    frame: Ecg
    samples: np.ndarray
    unit: str

    @property
    def num_samples(self) -> int:
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.frame.sampling_rate_hz

    def cut(self, start_s: float, signal: SignalConfig) -> Int16[np.ndarray, "lead sample"]:
        """The window from `start_s` as the model sees it. Raises RecordError as `preprocess`."""
        first = first_sample(start_s, self.frame.sampling_rate_hz)
        part = self.samples[:, first : first + samples_used(signal, self.frame.sampling_rate_hz)]
        return preprocess(replace(self.frame, signal_mv=in_millivolts(part, self.unit)), signal)


class Recordings:
    """The long recordings of one replica: at most `max_timelines`, each at most `max_timeline_bytes` on disk.

    None of the threads is shared with other requests.
    """

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._limits = BodyLimits(
            config.max_timeline_bytes,
            max_ecgs=1,
            max_duration_s=config.max_timeline_duration_s,
            max_texts=WORDINGS_PER_CLASS * config.max_classes,
            max_text_bytes=config.max_body_bytes,
        )
        self._threads = ThreadPoolExecutor(_THREADS, "timeline")
        self._decoder = ThreadPoolExecutor(1, "timeline-decode")
        self._held = 0

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Room for one recording, until the end of the block. Raises RequestError 503."""
        if self._held >= self._config.max_timelines:
            raise RequestError(
                503, "busy", f"this server is scoring {self._held} long recordings", hint="try again in a minute"
            )
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def read(
        self, request: Request, query: messages.TimelineQuery, until: float, held: contextlib.ExitStack
    ) -> tuple[messages.TimelineOptions, Recording]:
        """The options and the recording of a request: from a JSON body, or from the query string and a file.

        until: when to give up, as `time.monotonic()`. held: keeps the room for it, taken when its first bytes arrive:
        who only announces a body costs others nothing. Raises RequestError and RecordError as `Reader.one`, and
        RequestError 503 as `room`.
        """
        content_type = request.headers.get("content-type", "")
        is_json = media_type(content_type) == "application/json"
        if is_json and request.query_params:
            raise RequestError(
                400, "query_beside_json", "there is a query string beside a JSON body", hint="put it in the JSON body"
            )
        is_text = is_json or media_type(content_type).startswith("text/")
        with tempfile.TemporaryFile(prefix="mets_ray_") as body:
            limit = self._config.max_body_bytes if is_text else self._config.max_timeline_bytes
            parts = _in_time(body_parts(request, limit, hint=_HINT), until)
            await self._spool(parts, body, held)
            if is_json:
                return await self._run(self._decoder, lambda: _from_json(body, self._limits))
            leads = None if query.leads is None else tuple(lead.strip() for lead in query.leads.split(","))
            parameters = BodyParameters(query.unit, query.sampling_rate_hz, leads)
            kind = _kind(content_type, body)
            if media_type(kind) == "application/x-npy":
                return query, await self._run(self._threads, lambda: _from_npy(body, parameters, self._limits))
            return query, await self._run(self._decoder, lambda: _decoded(kind, body, parameters, self._limits))

    async def cut(
        self, recording: Recording, starts_s: Sequence[float], signal: SignalConfig
    ) -> list[np.ndarray | RecordError]:
        """For each start the window as the model sees it, or why it cannot be used."""
        return await self._run(self._threads, lambda: [_cut_or_error(recording, start, signal) for start in starts_s])

    async def _spool(self, arriving: AsyncIterator[bytes], file: IO[bytes], held: contextlib.ExitStack) -> None:
        """Write the body to `file`, part by part while it arrives."""
        parts: list[bytes] = []
        size = waiting = 0
        async for part in arriving:
            if part and size == 0:
                held.enter_context(self.room())
            size, waiting = size + len(part), waiting + len(part)
            parts.append(part)
            if waiting >= _WRITE_BYTES:
                await self._write(file, parts)
                parts, waiting = [], 0
        await self._write(file, parts)
        if size == 0:
            raise RequestError(400, "malformed_body", "the body is empty")

    async def _write(self, file: IO[bytes], parts: list[bytes]) -> None:
        def write() -> None:
            file.write(b"".join(parts))
            file.flush()

        await self._run(self._threads, write)

    async def _run(self, threads: ThreadPoolExecutor, act: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, act)
        except OSError as error:
            raise RequestError(
                503, "disk_full", "the recording could not be written to a temporary file", hint="try again later"
            ) from error


async def _in_time(parts: AsyncIterator[bytes], until: float) -> AsyncIterator[bytes]:
    """The parts of a body. Raises RequestError 408 where none arrives for a while, 503 behind `until`."""
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                part = await anext(parts, None)
        except TimeoutError as error:
            fact = f"nothing of the body arrived for {_SILENCE_S:g} s"
            raise RequestError(408, "silent_body", fact, hint="send it without pauses") from error
        if part is None:
            return
        if time.monotonic() > until:
            raise RequestError(503, "deadline", "the body took too long to arrive", hint="send a shorter part")
        yield part


def _kind(content_type: str, body: IO[bytes]) -> str:
    """The content type; for bytes without one, that of the format that they begin like."""
    if media_type(content_type) not in _UNNAMED:
        return content_type
    body.seek(0)
    head = body.read(max(map(len, _MAGIC)))
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), content_type)


def _from_npy(body: IO[bytes], parameters: BodyParameters, limits: BodyLimits) -> Recording:
    stated = check_array(npy_array(_mapped(body)), parameters, limits)
    check_sampling_rate(stated.sampling_rate_hz)
    frame = Ecg(in_millivolts(np.empty((len(stated.leads), 0)), stated.unit), stated.leads, stated.sampling_rate_hz)
    return Recording(frame, stated.ecgs[0], stated.unit)


def _from_json(body: IO[bytes], limits: BodyLimits) -> tuple[messages.TimelineOptions, Recording]:
    asked = parse_json(messages.TimelineRequest, _whole(body), limits)
    return asked, _on_disk(asked.ecg.to_ecg(limits))


def _decoded(content_type: str, body: IO[bytes], parameters: BodyParameters, limits: BodyLimits) -> Recording:
    ecgs = decode_body(content_type, _whole(body), parameters, limits)
    if len(ecgs) != 1:
        raise RequestError(422, "several_ecgs", f"the body holds {len(ecgs)} ECGs", hint="send one at a time")
    return _on_disk(ecgs[0])


def _whole(file: IO[bytes]) -> bytes:
    # Read and not copied from a map: reading lets other threads run.
    file.seek(0)
    return file.read()


def _mapped(file: IO[bytes]) -> mmap.mmap:
    """The file's bytes, of which only those that are used are in memory; they outlive the open file."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _on_disk(ecg: Ecg) -> Recording:
    """`ecg` with its signal, float64 millivolts, in a temporary file."""
    check_sampling_rate(ecg.sampling_rate_hz)
    shape = ecg.signal_mv.shape
    frame = replace(ecg, signal_mv=ecg.signal_mv[:, :0].copy())
    if ecg.signal_mv.size == 0:
        return Recording(frame, ecg.signal_mv, "mV")
    with tempfile.TemporaryFile(prefix="mets_ray_") as file:
        np.ascontiguousarray(ecg.signal_mv, np.float64).tofile(file)
        file.flush()
        samples = np.frombuffer(_mapped(file), np.float64).reshape(shape)
    return Recording(frame, samples, "mV")


def _cut_or_error(recording: Recording, start_s: float, signal: SignalConfig) -> np.ndarray | RecordError:
    try:
        return recording.cut(start_s, signal)
    except RecordError as error:
        return error
