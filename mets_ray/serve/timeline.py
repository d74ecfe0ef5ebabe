"""Scores over time: a long recording answered window by window, as lines of JSON (NDJSON).

Windows are cut and encoded a batch at a time, and the next batch begins when the client has taken the lines of the one
before, so memory does not grow with the recording. In a batch each window has its place, as in any request with many
windows: others' first windows come before it.
"""

import asyncio
import base64
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import numpy as np
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from jaxtyping import Float32
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from torch import Tensor

from mets_ray.ecg.timeline import window_count, window_starts
from mets_ray.errors import RecordError, RequestError
from mets_ray.model.calibrated_classes import OVER_TIME
from mets_ray.model.windows import largest_mv, low_amplitude, remarks
from mets_ray.serve import audit, messages
from mets_ray.serve.explanations import refuse_explain
from mets_ray.serve.prompt_sets import Found
from mets_ray.serve.recordings import Recording, Recordings
from mets_ray.serve.service import Service, Timings, class_warnings, error_facts, warned

logger = logging.getLogger("ray.serve")

MEDIA_TYPE = "application/x-ndjson"

_DECIMALS = 6
_LINE_BYTES = 300  # of a window beside its scores and its signal
_SCORE_BYTES = 20  # a score and a similarity


class Timelines:
    """Answers `POST /v1/timeline`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._recordings = Recordings(service.config)

    async def answer(self, request: Request, query: messages.TimelineQuery) -> Response:
        """The lines, as they become known. Raises RequestError and RecordError before the first of them."""
        until = time.monotonic() + self._service.config.timeline_deadline_s
        with contextlib.ExitStack() as stack:
            timings = Timings()
            options, recording = await self._recordings.read(request, query, until, stack)
            refuse_explain(options, "/v1/timeline")
            since = timings.stop("decode", timings.began)
            found, vectors = await self._service.classes(options)
            timings.stop("classes", since)
            audit.note_classes(request, options.candidate_labels, options.hypothesis_template, found.chosen.label)
            timeline = _Timeline(self._service, self._recordings, recording, options, found, vectors, timings)
            return _Lines(timeline.lines(until), stack.pop_all())


class _Lines(StreamingResponse):
    """Closes what it reads from when it ends, however it ends: the client may have gone."""

    def __init__(self, lines: AsyncGenerator[bytes], held: contextlib.ExitStack) -> None:
        super().__init__(lines, media_type=MEDIA_TYPE)
        self._lines = lines
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with contextlib.aclosing(self._lines):
                await super().__call__(scope, receive, send)


class _Timeline:
    """One recording being scored.

    Raises RecordError for a recording that has no window or not the leads, RequestError 422 for more windows, or a
    larger answer, than this server gives.
    """

    def __init__(
        self,
        service: Service,
        recordings: Recordings,
        recording: Recording,
        options: messages.TimelineOptions,
        found: Found,
        vectors: Tensor,
        timings: Timings,
    ) -> None:
        frame, self._about_leads = service.predictor.completed(recording.frame)
        recording = replace(recording, frame=frame)
        self._service, self._recordings, self._recording = service, recordings, recording
        self._options, self._found, self._vectors, self._timings = options, found, vectors, timings
        self._signal = service.predictor.signal
        self._classes = list(found.chosen.classes)
        self._stride_s = self._signal.duration_s if options.stride_s is None else options.stride_s
        if self._stride_s * frame.sampling_rate_hz < 1:
            raise RequestError(
                422,
                "stride_too_small",
                f"`stride_s` is {self._stride_s:g}, less than a sample of {frame.sampling_rate_hz:g} Hz",
                hint=f"set stride_s to at least {1 / frame.sampling_rate_hz:.3g}",
            )
        where = (recording.num_samples, frame.sampling_rate_hz, self._signal, self._stride_s)
        self._check_size(window_count(*where))  # first: a tiny stride has more starts than memory
        self._starts_s = window_starts(*where)
        self._scores = np.full((len(self._starts_s), len(self._classes)), np.nan, dtype=np.float32)
        self._left_out: Counter[str] = Counter()
        self._largest_mv = 0.0

    def _check_size(self, windows: int) -> None:
        config = self._service.config
        if windows > config.max_timeline_windows:
            fact = f"there are {windows} windows; at most {config.max_timeline_windows} are scored"
            raise RequestError(422, "too_many_windows", fact, hint="set a larger stride_s, or send a part")
        samples = len(self._signal.leads) * self._signal.num_samples if self._options.signals else 0
        size = windows * (_LINE_BYTES + _SCORE_BYTES * len(self._classes) + 2 * samples * 4 // 3)
        if size > config.max_timeline_bytes:
            fact = f"the answer would have {size} bytes; at most {config.max_timeline_bytes} are sent"
            raise RequestError(422, "answer_too_large", fact, hint="set a larger stride_s, or omit `signals`")

    async def lines(self, until: float) -> AsyncGenerator[bytes]:
        """Head, windows, summary; at `until` an error takes the place of what is missing."""
        try:
            yield _line(self._head())
            async for some in self._windows(until):
                yield some
            yield _line(self._summary())
        except RequestError as error:
            logger.warning("a timeline ended before its end: %s", error.reason)
            yield _line(messages.TimelineError(error=error_facts(error)))
        except Exception:
            fault = RequestError(500, "internal_error", "the server failed; see its log")
            yield _line(messages.TimelineError(error=error_facts(fault)))
            raise

    async def _windows(self, until: float) -> AsyncGenerator[bytes]:
        size = self._service.config.batch_size
        batches = [self._starts_s[first : first + size] for first in range(0, len(self._starts_s), size)]
        following = self._cut(batches[0])
        since = time.perf_counter()
        try:
            for number, starts_s in enumerate(batches):
                windows = await following
                if number + 1 < len(batches):
                    following = self._cut(batches[number + 1])  # while this batch is encoded
                if time.monotonic() > until:
                    limit_s = self._service.config.timeline_deadline_s
                    raise RequestError(
                        503,
                        "deadline",
                        f"not done within {limit_s:g} s",
                        hint="send a shorter part, or a larger stride_s",
                    )
                scored = await self._scored(windows, first=number * size)
                yield b"".join(map(_line, map(self._window, starts_s, windows, scored)))
        finally:
            following.cancel()
        self._timings.stop("windows", since)

    def _cut(self, starts_s: Sequence[float]) -> asyncio.Task[list[np.ndarray | RecordError]]:
        return asyncio.create_task(self._recordings.cut(self._recording, starts_s, self._signal))

    async def _scored(
        self, windows: Sequence[np.ndarray | RecordError], *, first: int
    ) -> list[tuple[list[float], list[float]] | None]:
        """(scores, similarities) of each window; None for one that was left out."""
        usable = {place: window for place, window in enumerate(windows) if isinstance(window, np.ndarray)}
        if not usable:
            return [None] * len(windows)
        self._largest_mv = max(self._largest_mv, largest_mv(np.stack(list(usable.values()))))
        vectors: Float32[np.ndarray, "window dimension"] = np.stack(
            await asyncio.gather(*map(self._service.encode, usable.values(), itertools.count()))
        )
        score, similarity = self._service.predictor.scores(
            vectors, self._vectors, multi_label=self._options.multi_label
        )
        self._scores[[first + place for place in usable]] = score
        rows = zip(_rounded(score), _rounded(similarity), strict=True)
        found = dict(zip(usable, rows, strict=True))
        return [found.get(place) for place in range(len(windows))]

    def _window(
        self, start_s: float, window: np.ndarray | RecordError, scored: tuple[list[float], list[float]] | None
    ) -> messages.TimelineWindow:
        end_s = round(start_s + self._signal.duration_s, _DECIMALS)
        if isinstance(window, RecordError):
            self._left_out[window.reason] += 1
            return messages.TimelineWindow(
                start_s=start_s, end_s=end_s, left_out=window.reason, message=window.fact[:_LINE_BYTES]
            )
        assert scored is not None
        signal = base64.b64encode(window.astype("<i2").tobytes()).decode() if self._options.signals else None
        return messages.TimelineWindow.model_construct(
            start_s=start_s, end_s=end_s, scores=scored[0], similarities=scored[1], signal_uv=signal
        )

    def _head(self) -> messages.TimelineHead:
        chosen, signal = self._found.chosen, self._signal
        noted = [*remarks(self._recording.frame, signal), *self._about_leads, *self._found.warnings]
        covered_s = self._starts_s[-1] + signal.duration_s
        if self._recording.duration_s - covered_s >= 1 / signal.sampling_rate_hz:
            rest_s = self._recording.duration_s - covered_s
            noted.append(("end_not_scored", f"no window begins late enough to hold the last {rest_s:.1f} s"))
        shape = messages.TimelineSignal(
            leads=list(signal.leads),
            sampling_rate_hz=signal.sampling_rate_hz,
            highpass_hz=signal.highpass_hz,
            samples=signal.num_samples,
        )
        return messages.TimelineHead(
            classes=self._classes,
            windows=len(self._starts_s),
            window_s=signal.duration_s,
            stride_s=self._stride_s,
            duration_s=round(self._recording.duration_s, _DECIMALS),
            multi_label=self._options.multi_label,
            hypothesis_template=chosen.template,
            prompt_set=chosen.label,
            model_version=self._service.predictor.model_version,
            not_calibrated=warned([OVER_TIME])[0],
            signal=shape if self._options.signals else None,
            warnings=[*warned(noted), *class_warnings(chosen, self._options.multi_label)],
        )

    def _summary(self) -> messages.TimelineSummary:
        is_scored = ~np.isnan(self._scores).any(axis=1)
        scores, starts_s = self._scores[is_scored], np.asarray(self._starts_s)[is_scored]
        above = self._options.above
        return messages.TimelineSummary(
            windows=len(self._starts_s),
            scored=len(scores),
            left_out=dict(sorted(self._left_out.items())),
            above=above,
            classes=[
                messages.TimelineClass(
                    class_name=name,
                    mean_score=round(float(column.mean(dtype=np.float64)), _DECIMALS),
                    highest_score=round(float(column.max()), _DECIMALS),
                    highest_at_s=float(starts_s[column.argmax()]),
                    share_above=round(float((column > above).mean()), _DECIMALS),
                    share_first=round(float((column == scores.max(axis=1)).mean()), _DECIMALS),
                )
                for name, column in zip(self._classes, scores.T, strict=True)
            ]
            if len(scores)
            else [],
            warnings=warned(low_amplitude(self._largest_mv) if len(scores) else []),
            timings_ms=self._timings.total(),
        )


def _rounded(values: Float32[np.ndarray, "window class"]) -> list[list[float]]:
    rounded: list[list[float]] = values.astype(np.float64).round(_DECIMALS).tolist()
    return rounded


def _line(line: BaseModel) -> bytes:
    is_window = isinstance(line, messages.TimelineWindow)
    return line.model_dump_json(exclude_none=is_window).encode() + b"\n"
