"""`mets-ray serve`: the application on a local Ray instance, or on the cluster at RAY_ADDRESS."""

import argparse
import os
import socket
from collections.abc import Sequence
from typing import Any

from mets_ray import bundles, stops, storage
from mets_ray.config.flat import describe_flat, read_flat
from mets_ray.config.load import read_file
from mets_ray.console import say
from mets_ray.errors import CheckpointError, ConfigError, MetsError
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.tokens import Tokens

# As serve_configs/local.yaml: one machine, one user.
_LOCAL: dict[str, Any] = {
    "bundle_uri": ".runs",
    "state_uri": ".runs/serve-state",
    "auth": "none",
    "encoder_threads": 2,
    "text_cpus": 0.5,
    "archive_cpus": 0.5,
}
_SPARE_S = 20.0  # for Serve's own work beside the deadlines of the app, which answer with a reason
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run_server(words: Sequence[str]) -> None:
    """Parse the arguments and serve until SIGTERM or Ctrl-C.

    Exits with 143 or 130 then, with 2 for invalid settings, with 1 for other errors.
    """
    stops.listen()
    arguments = _parse(words)
    try:
        config = read_settings(arguments.config, arguments.words)
        if config.auth == "none" and arguments.host not in _LOOPBACK:
            raise ConfigError(
                f"`auth` is none, but `--host {arguments.host}` lets other machines in",
                hint=f"set auth=bearer and the environment variable {config.token_env}, or keep --host 127.0.0.1",
            )
        if config.auth == "bearer" and "RAY_ADDRESS" not in os.environ:
            Tokens(config)  # replicas on this machine will read the same: what is wrong with it shows at once
        if os.environ.get("RAY_ADDRESS", "local") == "local":
            _check_address(arguments.host, arguments.port)
        _serve(_or_packaged(config), arguments.host, arguments.port)
    except MetsError as error:
        say(f"serve: {error}")
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        say("serve: stopped")
        raise SystemExit(stops.exit_status()) from None


def read_settings(path: str | None, words: Sequence[str]) -> ServeConfig:
    """Defaults for a local server, overridden by a YAML file, then by `key=value` words. Raises ConfigError."""
    tree = dict(_LOCAL)
    if path is not None:
        loaded = read_file(path)
        tree = _first_application(loaded["applications"], path) if "applications" in loaded else loaded
    return read_flat(ServeConfig, tree, words)


def request_timeout_s(config: ServeConfig) -> float:
    """When Serve gives up on a request: later than the app, whose answer says why."""
    return config.deadline_s + max(config.timeline_deadline_s, config.archive_cohort_deadline_s) + _SPARE_S


def _first_application(applications: Any, path: str) -> dict[str, Any]:
    first = applications[0] if isinstance(applications, list) and applications else None
    tree = first.get("args") or {} if isinstance(first, dict) else None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"the `applications` of `--config {path}` are not a list whose first entry has its settings in `args`",
            hint="write it as serve_configs/local.yaml, or give a file of settings alone",
        )
    return tree


def _check_address(host: str, port: int) -> None:
    """Raise ConfigError for a port that cannot be listened on: Ray would start first, and say so in a trace."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"`--port` is {port}", hint="use 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            hint="stop the program that listens there, or give another --port",
        ) from error


def _or_packaged(config: ServeConfig) -> ServeConfig:
    """The same settings; with the packaged bundle where nobody named one and none was trained here yet."""
    from mets_ray.model.bundle import newest_bundle

    if config.bundle_uri != _LOCAL["bundle_uri"] or not bundles.is_packaged(bundles.DEMO_NAME):
        return config
    try:
        newest_bundle(storage.absolute(config.bundle_uri))
    except CheckpointError:
        say(f"no bundle under {config.bundle_uri} yet: serving the packaged one, `{bundles.DEMO_NAME}`")
        return config.model_copy(update={"bundle_uri": bundles.DEMO_NAME})
    return config


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mets-ray serve",
        description="Serve zero-shot requests over HTTP, with a page at / and the API at /docs. Ctrl-C stops it.",
        epilog=f"settings (key = default; without --config, {_LOCAL}):\n{describe_flat(ServeConfig)}".replace(
            "%", "%%"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file of settings, or one of serve_configs/ (its first application)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000)")
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings that override the file")
    return parser.parse_args(list(words))


def _serve(config: ServeConfig, host: str, port: int) -> None:
    import ray
    from ray import serve

    from mets_ray.serve.deployments import build

    application = build(config)  # fails before Ray starts
    options = {"host": host, "port": port, "request_timeout_s": request_timeout_s(config)}
    try:
        with stops.ray_starting():
            ray.init(address=os.environ.get("RAY_ADDRESS", "local"))
        serve.start(proxy_location="HeadOnly", http_options=options)
        say(f"starting; then open http://{host}:{port} (API: http://{host}:{port}/docs)")
        serve.run(application, name="mets_ray", route_prefix="/", blocking=True)
    finally:
        stops.ignore()
        serve.shutdown()
        ray.shutdown()
