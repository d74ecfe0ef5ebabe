"""`python -m tests.support.measured_server BUNDLE STATE PORT`: a replica without Ray that times its own event loop.

`GET /began` begins a measurement. `GET /measured` answers how long the loop was held at most since then, and the most
memory in bytes. Two things are not taken for a hold. Another process that has the processor: a hold is counted in the
processor time of this one. And a slow machine: it is counted in units of a short loop of Python, timed before.
"""

import asyncio
import ctypes
import sys
import time
from pathlib import Path

import pyarrow as pa
import uvicorn

from mets_ray.serve.app import create_app
from mets_ray.serve.batching import Batches
from tests.support.serving import Counts, make_service

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _memory_bytes(name):
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


class Watch:
    """The loop's longest hold, and the process's largest size."""

    def __init__(self):
        self.longest_s = 0.0
        self.before = 0
        self.unit_s = 0.0

    async def run(self):
        while True:
            began, computed = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.001)
            waited = time.perf_counter() - began - 0.001
            self.longest_s = max(self.longest_s, min(waited, time.process_time() - computed))

    def begin(self):
        pa.default_memory_pool().release_unused()  # what an earlier body took must not be there for the next one
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR.write_text("5")  # the high-water mark starts from here
        began = time.process_time()
        for _ in range(100_000):
            pass
        self.unit_s = time.process_time() - began
        self.longest_s, self.before = 0.0, _memory_bytes("VmRSS")

    def found(self):
        return {
            "units": self.longest_s / self.unit_s,
            "longest_s": self.longest_s,
            "bytes": _memory_bytes("VmHWM") - self.before,
        }


def main(bundle, state, port):
    counts = Counts()
    service = make_service(bundle, counts, state_uri=state, with_lm=False)
    embed = service.predictor.embed_windows
    service.encode = Batches(embed, batch_size=16, wait_s=0.0, threads=1, counted=lambda windows: None)
    app = create_app(service, counts)
    watch = Watch()

    @app.get("/began")
    async def began():
        watch.begin()
        return {}

    @app.get("/measured")
    async def measured():
        return watch.found()

    async def serve():
        watching = asyncio.create_task(watch.run())
        await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")).serve()
        watching.cancel()

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
