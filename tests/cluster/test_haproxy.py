"""Ray's HAProxy with the two variables of serve_configs/rayservice.yaml: a request outlives the replica that had it."""

import contextlib
import socketserver
import subprocess
import threading
import time

import httpx
import pytest
import yaml
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig, get_haproxy_binary
from ray.serve.config import HTTPOptions

from tests.conftest import ROOT
from tests.support.serving import free_port

REQUESTS = 20
RAYS_OWN = {"retry_on": "conn-failure", "bufsize": 16384}


def of_rayservice():
    manifest = yaml.safe_load((ROOT / "serve_configs" / "rayservice.yaml").read_text())
    pod = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    return {
        "retry_on": variables["RAY_SERVE_HAPROXY_RETRY_ON"],
        "bufsize": int(variables["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
    }


@contextlib.contextmanager
def replica(*, dies):
    """A server that reads whole requests, and answers them or, if it `dies`, closes the connection instead."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(ConnectionError):
                self.answer()

        def answer(self):
            while line := self.rfile.readline():
                length = 0
                while (header := self.rfile.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                if dies and line.startswith(b"POST"):
                    return
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextlib.contextmanager
def haproxy(folder, ports, settings):
    """Where Ray's binary answers, with the configuration that Ray writes for replicas at `ports`."""
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        enable_hap_optimization=False,
        metrics_enabled=False,
        nbthread=1,
        stats_port=free_port(),
        metrics_port=free_port(),
        http_options=HTTPOptions(host="127.0.0.1", port=free_port()),
        **settings,
    )
    servers = [ServerConfig(f"replica{port}", "127.0.0.1", port) for port in ports]
    path = folder / "haproxy.cfg"
    HAProxyApi(config, {"app": BackendConfig("app", "/", servers=servers)}, str(path))._generate_config_file_internal()
    with subprocess.Popen([get_haproxy_binary(), "-f", str(path), "-db"], stderr=subprocess.DEVNULL) as running:
        url = f"http://127.0.0.1:{config.http_options.port}"
        try:
            began = time.monotonic()
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(url).status_code == 200:
                        break
                assert running.poll() is None
                assert time.monotonic() - began < 20
                time.sleep(0.1)
            yield url
        finally:
            running.kill()


def answered(folder, settings, size):
    with (
        replica(dies=True) as first,
        replica(dies=False) as second,
        haproxy(folder, [first, second], settings) as url,
    ):
        return sum(is_answered(url, bytes(size)) for _ in range(REQUESTS))


def is_answered(url, body):
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(url, content=body, timeout=20).status_code == 200
    return False


@pytest.mark.parametrize("size", [2_000, 120_000, 1_000_000])
def test_no_request_is_lost_with_a_replica_that_dies_while_it_has_it(tmp_path, size):
    assert answered(tmp_path, of_rayservice(), size) == REQUESTS


def test_rays_own_configuration_loses_some(tmp_path):
    """If it does not any more, the variables are no longer needed."""
    assert answered(tmp_path, RAYS_OWN, 120_000) < REQUESTS
