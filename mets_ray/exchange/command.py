"""`mets-ray export`: needs no Ray. People read stderr; stdout carries one line, the result as a JSON object."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from mets_ray.config.flat import describe_flat, read_flat
from mets_ray.console import say
from mets_ray.errors import ConfigError, MetsError
from mets_ray.exchange.settings import ExportConfig


def run_export(words: Sequence[str]) -> None:
    """Parse the words and export. Exits with 0, with 2 for settings that cannot work, with 1 for other errors."""
    parser = argparse.ArgumentParser(
        prog="mets-ray export",
        description="Write a bundle as a Hugging Face folder, with a model card and ONNX of the ECG side.",
        epilog=f"settings (key = default):\n{describe_flat(ExportConfig)}".replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings")
    arguments = parser.parse_args(list(words))
    try:
        config = read_flat(ExportConfig, {}, arguments.words)
        from mets_ray.exchange.folder import export

        found = export(config)
    except MetsError as error:
        say(f"export: {error}")
        print(json.dumps({"job": "export", "error": str(error)}))
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    say(f"{found.model_version}: {found.bytes_written / 1e6:.1f} MB in {found.output_uri}")
    if found.local_paths:
        say(
            f"its config.yaml names paths of the machine that trained it: {', '.join(found.local_paths)}; "
            "name=… exports it without them"
        )
    if found.hub_uri:
        say(f'pushed; mets_ray.load_bundle("{found.hub_uri}") reads it')
    print(json.dumps({"job": "export"} | asdict(found)))
