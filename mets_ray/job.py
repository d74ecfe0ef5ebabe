"""What all jobs share: the command line, one Ray session, and a last line on stdout that a machine can read.

People read stderr. Stdout carries one line, the JSON object of the result, written after Ray is shut down because
forwarded worker logs can follow anything that is printed before. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import ray

from mets_ray import storage
from mets_ray.cluster.nodes import check_storage
from mets_ray.config.load import describe_settings, dump_config, load_config
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.errors import ConfigError, MetsError


def run_job(name: str, documentation: str, main: Callable[[Config, str], dict[str, Any]]) -> None:
    """Parse the command line, run `main(config, command)` inside a Ray session, print its figures, exit."""
    arguments = _parse(documentation)
    result_stream = _keep_stdout_for_the_result()
    command = " ".join(map(shlex.quote, ["python", *sys.argv]))
    try:
        config = load_config(arguments.config, arguments.overrides)
        _refuse_folders_that_vanish(config)
        config = _absolute(config)
        _show_config(name, config)
        figures = _in_ray(name, main, config, command)
        status = 0
    except ConfigError as error:
        figures, status = {"error": str(error)}, 2
    except MetsError as error:
        figures, status = {"error": str(error)}, 1
    except Exception as error:
        traceback.print_exc()
        figures, status = {"error": f"{type(error).__name__}: {error}"}, 1
    if status:
        say(f"{name}: {figures['error']}")
    print(json.dumps({"job": name} | figures), file=result_stream, flush=True)
    raise SystemExit(status)


def _in_ray(name: str, main: Callable[[Config, str], dict[str, Any]], config: Config, command: str) -> dict[str, Any]:
    # A report returns only at the controller's next poll, 2 s by default: epochs of a small run are shorter.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray ends idle task processes after 1 s and starts new ones for 3 s at every epoch's validation on a small machine.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    # DDP warns that find_unused_parameters found none; it is set for another reason (see train_worker).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Without an address Ray would look for a cluster on this machine, and wait minutes for one that is long dead.
    ray.init(address=os.environ.get("RAY_ADDRESS", "local"), logging_level=logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        check_storage(_used_uris(name, config))
        return main(config, command)
    finally:
        ray.shutdown()


def _used_uris(name: str, config: Config) -> dict[str, str | None]:
    uris = {"dataset_uri": config.dataset_uri, "run_uri": config.run_uri, "text.store_uri": config.text.store_uri}
    of_job = {"prepare": {"prepare.source_uri": config.prepare.source_uri}}
    of_job["score"] = {"score.output_uri": config.score.output_uri, "score.bundle_uri": config.score.bundle_uri}
    return uris | of_job.get(name, {})


def _keep_stdout_for_the_result() -> Any:
    # Ray forwards worker output to stdout, and libraries print there: everything but the result goes to stderr.
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return stream


def _parse(documentation: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=documentation,
        epilog=f"settings (key = default):\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="YAML file of settings, for example jobs/configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    return parser.parse_args()


def _refuse_folders_that_vanish(config: Config) -> None:
    # `ray job submit --working-dir` runs in an unpacked copy that Ray deletes after the job.
    if "runtime_resources" not in Path.cwd().parts:
        return
    written = {"run_uri": config.run_uri, "dataset_uri": config.dataset_uri, "text.store_uri": config.text.store_uri}
    written["score.output_uri"] = config.score.output_uri
    for key, uri in written.items():
        if uri is not None and storage.is_local(uri) and not Path(uri.removeprefix("file://")).is_absolute():
            raise ConfigError(
                f"`{key}` is the relative path `{uri}`, inside a copy of the working folder that Ray deletes",
                hint=f"give an absolute path or a bucket, for example {key}=$PWD/{uri}",
            )


def _absolute(config: Config) -> Config:
    """Local paths made absolute, because workers may start in another folder."""

    def absolute(uri: str | None) -> str | None:
        return uri if uri is None else storage.absolute(uri)

    text, train, prepare = config.text, config.train, config.prepare
    model = absolute(text.model) if Path(text.model).is_dir() else text.model
    return config.model_copy(
        update={
            "dataset_uri": absolute(config.dataset_uri),
            "run_uri": absolute(config.run_uri),
            "text": text.model_copy(update={"model": model, "store_uri": absolute(text.store_uri)}),
            "train": train.model_copy(
                update={"init_from": absolute(train.init_from), "resume": absolute(train.resume)}
            ),
            "prepare": prepare.model_copy(
                update={
                    name: absolute(getattr(prepare, name)) for name in ("source_uri", "manifest_uri", "statements_uri")
                }
            ),
            "evaluate": config.evaluate.model_copy(update={"bundle_uri": absolute(config.evaluate.bundle_uri)}),
            "score": config.score.model_copy(
                update={name: absolute(getattr(config.score, name)) for name in ("bundle_uri", "output_uri")}
            ),
        }
    )


def _show_config(name: str, config: Config) -> None:
    """Print the resolved configuration and keep it under run_uri."""
    text = dump_config(config)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    uri = storage.join(storage.absolute(config.run_uri), "configs", f"{name}-{stamp}.yaml")
    say(f"# {name}: resolved configuration, kept as {uri}\n{text}")
    storage.write_bytes(uri, text.encode())
