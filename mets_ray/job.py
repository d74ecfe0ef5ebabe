"""What every command shares: its arguments, one Ray session, and a last line on stdout that a machine can read.

People read stderr. Stdout carries one line, the JSON object of the result, written after Ray is shut down because
forwarded worker logs can follow anything that is printed before. Exit status: 0 done, 1 failed, 2 wrong usage, 143 or
130 stopped by SIGTERM or SIGINT. Ray is imported once the settings are known to be right, so that `--help` and a typing
error cost a second less.
"""

import argparse
import importlib
import json
import logging
import os
import shlex
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mets_ray import stops, storage
from mets_ray.config.kinds import PlaceSetting, places, with_places
from mets_ray.config.load import describe_settings, dump_changes, dump_config, load_config
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.errors import ConfigError, MetsError


@dataclass(frozen=True)
class Command:
    """One verb: `mets-ray NAME` and `python jobs/NAME.py`.

    run(config, command line): the work, inside a Ray session; what it returns is the result. check(config): raises
    ConfigError for what can be refused before Ray starts. sections: the settings whose URIs it uses, besides
    `dataset_uri` and `run_uri`. more_sections: others that it reads, for `--help`. libraries: what `run` is sure to
    import and takes seconds: it is imported while Ray starts. config_path: a YAML file to start from where `--config`
    names none.
    """

    name: str
    description: str
    run: Callable[[Config, str], dict[str, Any]]
    check: Callable[[Config], object]
    sections: tuple[str, ...]
    more_sections: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    config_path: Path | None = None


def run_command(command: Command, words: Sequence[str]) -> None:
    """Parse the words, run the command inside a Ray session, print its result, exit."""
    stops.listen()
    arguments = parse_words(command, words)
    result_stream = _keep_stdout_for_the_result()
    try:
        result, status = _outcome(command, arguments, words)
    except KeyboardInterrupt:  # between two lines of `_outcome`
        result, status = _stopped()
    stops.ignore()
    if status:
        say(f"{command.name}: {result['error']}")
    print(json.dumps({"job": command.name} | result), file=result_stream, flush=True)
    if status == stops.exit_status():
        # At once: Python would wait for its threads, and one may read from a store that does not answer.
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


def _outcome(command: Command, arguments: argparse.Namespace, words: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The result, or what went wrong, and the exit status."""
    line = " ".join(map(shlex.quote, ["mets-ray", command.name, *words]))
    try:
        config = load_settings(command, arguments)
        _show_config(command.name, config)
        result = _in_ray(command, config, line)
        status = 0
    except KeyboardInterrupt:
        result, status = _stopped()
    except ConfigError as error:
        result, status = {"error": str(error)}, 2
    except MetsError as error:
        result, status = {"error": str(error)}, 1
    except Exception as error:
        if stops.told() is not None:  # it fails because it was stopped, for instance together with a Ray of its own
            return _stopped()
        traceback.print_exc()
        result, status = {"error": f"{type(error).__name__}: {error}"}, 1
    return result, status


def _stopped() -> tuple[dict[str, Any], int]:
    number = stops.told() or signal.SIGINT
    return {"error": "stopped", "signal": number.name}, stops.exit_status()


def parse_words(command: Command, words: Sequence[str]) -> argparse.Namespace:
    """`--config` and the `key=value` words of a command line; exits for `--help` and for an unknown flag."""
    wants_help = bool({"-h", "--help"} & set(words))
    parser = argparse.ArgumentParser(
        prog=f"mets-ray {command.name}",
        description=command.description,
        epilog=_epilog(command) if wants_help else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file of settings, for example jobs/configs/ptbxl_100hz.yaml")
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings that override the file")
    return parser.parse_args(list(words))


def _epilog(command: Command) -> str:
    sections = {*command.sections, *command.more_sections}
    return (
        f"settings (key = default):\n{describe_settings(sections)}\n\nA file may hold those of other commands too: "
        "docs/reference/configuration.md has all."
    )


def load_settings(command: Command, arguments: argparse.Namespace) -> Config:
    """The settings, all local paths absolute. Raises ConfigError for what can be refused before Ray starts."""
    config = load_config(arguments.config or command.config_path, arguments.words)
    command.check(config)
    _refuse_folders_that_vanish(used_places(command, config))
    # Workers may start in another folder.
    absolute: Config = with_places(config, storage.absolute)
    return absolute


def used_places(command: Command, config: Config) -> list[PlaceSetting]:
    """The URIs of the configuration that a command reads or writes."""
    sections = {"dataset_uri", "run_uri", *command.sections}
    return [place for place in places(config) if place.key.split(".")[0] in sections]


def _refuse_folders_that_vanish(used: Sequence[PlaceSetting]) -> None:
    # `ray job submit --working-dir` runs in an unpacked copy that Ray deletes after the job.
    if "runtime_resources" not in Path.cwd().parts:
        return
    for place in used:
        path = place.uri.removeprefix("file://")
        if place.written and storage.is_local(place.uri) and not Path(path).is_absolute():
            raise ConfigError(
                f"`{place.key}` is the relative path `{place.uri}`, inside a copy of the working folder that Ray "
                "deletes",
                hint=f"give an absolute path or a bucket, for example {place.key}=$PWD/{place.uri}",
            )


def _show_config(name: str, config: Config) -> None:
    """Print what differs from the defaults, and keep the whole configuration under `run_uri`."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    uri = storage.join(config.run_uri, "configs", f"{name}-{stamp}-{uuid.uuid4().hex[:4]}.yaml")
    changes = dump_changes(config) or "(all defaults)\n"
    say(f"# {name}: settings that differ from the defaults; all of them are kept as {uri}\n{changes}")
    storage.write_bytes(uri, dump_config(config).encode())


def _in_ray(command: Command, config: Config, line: str) -> dict[str, Any]:
    import ray

    from mets_ray.cluster.nodes import check_storage

    # A report returns only at the controller's next poll, 2 s by default: epochs of a small run are shorter.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray ends idle task processes after 1 s and starts new ones for 3 s at every epoch's validation on a small machine.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    # DDP warns that find_unused_parameters found none; it is set for another reason (see training/state.py).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Without an address Ray would look for a cluster on this machine, and wait minutes for one that is dead.
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":  # nobody takes the only node away, and the process that would notice costs a second to start
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        # Starting Ray is mostly waiting for its processes. Nothing that `ray.init` imports is among the libraries: two
        # threads inside one package's import get modules that are half loaded, or wait for each other for ever.
        imports = threading.Thread(target=_load, args=(command.libraries,), name="imports")
        imports.start()
        with stops.ray_starting():
            ray.init(address=address, logging_level=logging.WARNING)
        imports.join()
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        check_storage({place.key: place.uri for place in used_places(command, config)})
        result = command.run(config, line)
    except stops.StillBusyError:
        raise  # Ray's processes notice by themselves that their driver is gone
    except BaseException as error:
        _let_go(error)
        _end_ray()
        raise
    _end_ray()
    return result


def _load(libraries: Sequence[str]) -> None:
    for library in libraries:
        with suppress(ImportError):  # whoever needs it says so
            importlib.import_module(library)


def _let_go(error: BaseException) -> None:
    """Drop what the interrupted functions held. A stream of Ray Data that lives longer than Ray starts Ray anew."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _end_ray() -> None:
    import ray

    stops.ignore()
    ray.shutdown()


def _keep_stdout_for_the_result() -> Any:
    # Ray forwards worker output to stdout, and libraries print there: everything but the result goes to stderr.
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return stream
