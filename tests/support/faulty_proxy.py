"""A real HTTP proxy that breaks requests on purpose: what a busy object store, or the way to it, does on a bad day.

Faults: `slow_down` (503 SlowDown) and `error` (500 InternalError) instead of asking the store, `stall` (the request
waits before it is passed on), `cut` (the head of the answer and half its body, then the connection is closed), `lost`
(the store does it, and the connection is closed without an answer), `reset` (closed without asking the store).
"""

import asyncio
import random
import threading
from collections import Counter, deque
from contextlib import contextmanager

import aiohttp
from aiohttp import web

from mets_ray import storage

# Faults after which a client must retry; one that waits long enough need not after a `stall`.
RETRIED = ("slow_down", "error", "cut", "lost", "reset")
_HOP_BY_HOP = {
    "transfer-encoding",
    "connection",
    "keep-alive",
    "content-length",
    "content-encoding",
    "date",
    "server",
    "expect",
}
_ERRORS = {"slow_down": (503, "SlowDown", "Please reduce your request rate."), "error": (500, "InternalError", "Oops.")}


class FaultyProxy:
    """`shares` breaks requests by chance, drawn from `seed`; `plan` breaks the next ones in its order (None: none), of
    those whose method and path have `only` in them.

    `counts` has a number for each fault that was done, and for `requests`. `unanswered` holds what was broken and not
    retried yet, so at the end of a run that lost nothing it is empty.
    """

    def __init__(self, target: str, *, seed: int = 0, stall_s: float = 10.0) -> None:
        self.target = target
        self.shares: dict[str, float] = {}
        self.plan: deque[str | None] = deque()
        self.only = ""
        self.always: str | None = None
        self.counts: Counter[str] = Counter()
        self.unanswered: Counter[tuple[str, str, str]] = Counter()
        self._stall_s = stall_s
        self._random = random.Random(seed)

    @property
    def faults(self) -> int:
        """How many requests a client had to send again."""
        return sum(self.counts[kind] for kind in RETRIED)

    def _draw(self, asked: str) -> str | None:
        if self.plan and self.only in asked:
            return self.plan.popleft()
        if self.always:
            return self.always
        point = self._random.random()
        for kind, share in self.shares.items():
            if point < share:
                return kind
            point -= share
        return None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # else aiohttp takes the answer's head for sent
        body = await request.content.read()  # `request.read()` has a limit of 1 MB
        kind = self._draw(f"{request.method} {request.raw_path}")
        key = (request.method, request.raw_path, request.headers.get("Range", ""))
        self.counts["requests"] += 1
        if self.unanswered[key] > 1:
            self.unanswered[key] -= 1
        else:
            del self.unanswered[key]
        if kind in _ERRORS:
            self._count(kind, key)
            status, code, message = _ERRORS[kind]
            text = (
                f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
            )
            return web.Response(status=status, text=text, content_type="application/xml")
        if kind == "reset":
            self._count(kind, key)
            return _closed(request)
        if kind == "stall":
            self.counts[kind] += 1
            await asyncio.sleep(self._stall_s)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        if "Content-Encoding" in request.headers:
            headers["Content-Encoding"] = request.headers["Content-Encoding"]
        async with self._session.request(
            request.method, self.target + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as found:
            data = await found.read()
            kept = [(name, value) for name, value in found.headers.items() if name.lower() not in _HOP_BY_HOP]
            status, length = found.status, found.headers.get("Content-Length", str(len(data)))
        if kind == "lost":
            self._count(kind, key)
            return _closed(request)
        if request.method == "HEAD":
            return web.Response(status=status, headers=[*kept, ("Content-Length", length)])
        if kind == "cut" and len(data) > 1 and status < 300:
            self._count(kind, key)
            response = web.StreamResponse(status=status, headers=[*kept, ("Content-Length", str(len(data)))])
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            await asyncio.sleep(0.01)
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(status=status, headers=kept, body=data)

    def _count(self, kind: str, key: tuple[str, str, str]) -> None:
        self.counts[kind] += 1
        self.unanswered[key] += 1

    async def run(self, port: int, started: threading.Event, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            runner = web.ServerRunner(web.Server(self.answer))
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=0.5)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await stop.wait()
            await runner.cleanup()
            stalled = asyncio.all_tasks() - {asyncio.current_task()}
            for task in stalled:
                task.cancel()
            await asyncio.gather(*stalled, return_exceptions=True)


def _closed(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@contextmanager
def faulty_proxy(target: str, *, seed: int = 0, stall_s: float = 10.0, port: int = 0):
    """A running proxy in front of `target`; its address is `.url`."""
    proxy = FaultyProxy(target, seed=seed, stall_s=stall_s)
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.run(port, started, stop),), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def count_retries(proxy, call):
    """The result of `call`, and how many requests storage sent again for it: those that the proxy broke, except that
    aiohttp itself sends a request once more when a kept-alive connection is closed without an answer."""
    before, faults = storage.RESENDS.total, proxy.counts.copy()
    answer = call()
    done = proxy.counts - faults
    closed = done["reset"] + done["lost"]
    answered = sum(done[kind] for kind in RETRIED) - closed
    assert answered <= storage.RESENDS.total - before <= answered + closed
    assert not proxy.unanswered
    return answer, storage.RESENDS.total - before
