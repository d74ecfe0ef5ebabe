"""A server as a process of its own: started, waited for, and ended with all that it has started."""

import os
import signal
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import psutil

STARTS_WITHIN_S = 300.0


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def server_process(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """The server once `/readyz` answers on `port`, on a Ray of its own. Raises RuntimeError if it does not start."""
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed below, after the process has ended
    process = psutil.Popen(
        command,
        env=os.environ | {"RAY_ADDRESS": "local"} | dict(environment or {}),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        ends = time.monotonic() + STARTS_WITHIN_S
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > ends:
                log.seek(0)
                raise RuntimeError(f"{command} did not start: {log.read().decode()[-3000:]}")
            time.sleep(0.5)
        yield process
    finally:
        started = process.children(recursive=True) if process.poll() is None else []
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired):
            process.wait(timeout=60)
        # HAProxy outlives the Ray that started it and keeps its ports occupied.
        for left in (process, *started):
            with suppress(psutil.NoSuchProcess):
                left.kill()
        log.close()


def _is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).read()
    except OSError:  # urllib's errors are some
        return False
    return True
