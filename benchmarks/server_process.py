"""A server as a process of its own: started, waited for, and ended with all that it has started."""

import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

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


@contextmanager
def behind_haproxy(config_path: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, psutil.Process]]:
    """(URL of zero-shot requests, process) of the application with these settings, by `serve run` as in production:
    HAProxy, no hop between threads, no language model. config_path: where its configuration is written."""
    port = free_port()
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "mets_ray",
                "route_prefix": "/",
                "import_path": "mets_ray.serve:build",
                "args": {
                    "auth": "none",
                    "text_min_replicas": 0,
                    "text_max_replicas": 0,
                    "max_queued_requests": 2000,
                    **settings,
                },
            }
        ],
    }
    config_path.write_text(yaml.safe_dump(config))
    environment = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config_path)]
    with server_process(command, port, environment) as process:
        yield f"http://127.0.0.1:{port}/v1/zero-shot", process


def _is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).read()
    except OSError:  # urllib's errors are some
        return False
    return True
