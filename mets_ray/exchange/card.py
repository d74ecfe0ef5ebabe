"""The model card of an exported bundle: README.md with the hub's metadata."""

import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from mets_ray import __version__, storage
from mets_ray.config.load import dump_changes
from mets_ray.config.source import SOURCES, source_class
from mets_ray.dataset.card import DatasetCard, read_card
from mets_ray.ecg.preprocess import HIGHPASS_MARGIN_S
from mets_ray.errors import ConfigError, MetsError
from mets_ray.metrics.calibration import LEAST_PATIENTS
from mets_ray.metrics.cross_fitting import CrossFitted
from mets_ray.model.bundle import Bundle
from mets_ray.model.predictor import Predictor

_ERRORS = {"expected": "expected_calibration_error", "brier": "brier"}
_HUB_LICENCES = {"CC BY 4.0": "cc-by-4.0", "ODbL 1.0": "odbl"}


@dataclass(frozen=True)
class Told:
    """What a card says beside what is in the bundle.

    figures: (task, value with interval). notes: Markdown. onnx: the model's file, None where there is none. classes:
    (prompt set, task) of the example.
    """

    figures: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    onnx: str | None = None
    classes: tuple[str, str] = ("", "")


def model_card(predictor: Predictor, dataset: DatasetCard | None, told: Told) -> str:
    """The card in Markdown. dataset: what the bundle was trained on, where its card can still be read."""
    facts, config = predictor.facts, predictor.bundle.config
    source: Any = source_class(facts.dataset_source) if facts.dataset_source in SOURCES else None
    licence = dataset.licence if dataset else getattr(source, "licence", "")
    template = resources.files("mets_ray").joinpath("exchange/card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        facts=facts,
        config=config,
        version=predictor.model_version,
        parameters=sum(parameter.numel() for parameter in predictor.bundle.model.parameters()),
        statements=predictor.bundle.statements,
        takes_fewer_leads=predictor.bundle.takes_fewer_leads,
        records=dataset.records_out if dataset else None,
        licence=licence,
        licence_id=_HUB_LICENCES.get(licence, "other"),
        citation=dataset.citation if dataset else getattr(source, "citation", ""),
        figures=told.figures,
        onnx=told.onnx,
        example=told.classes,
        padding=round(HIGHPASS_MARGIN_S * facts.sampling_rate_hz),
        mets_ray_version=__version__,
        settings=dump_changes(config) or "# none\n",
        notes=told.notes.strip(),
        calibrations=_calibrations(predictor.bundle),
        least_patients=LEAST_PATIENTS,
        heads=list(predictor.heads.values()),
        number=_number,
    )


def _calibrations(bundle: Bundle) -> list[dict[str, Any]]:
    """A row for each task that is calibrated."""
    return [
        {
            "words": f"{file.prompts.name}:{task}@{file.prompts.version}",
            "usable": sum(row.fault is None for row in of.calibration.classes),
            "classes": len(of.calibration.classes),
            "records": of.calibration.records,
            "patients": of.calibration.patients,
        }
        | {key: _before_and_after(of.cross_fitted, name) for key, name in _ERRORS.items()}
        for file in bundle.calibrations.files
        for task, of in file.tasks.items()
    ]


def _before_and_after(of: CrossFitted | None, name: str) -> str:
    return "not measured" if of is None else f"{_number(getattr(of.before, name))} → {_number(getattr(of.after, name))}"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def trained_on(bundle: Bundle) -> DatasetCard | None:
    """The card of the data set that the bundle was trained on, if it is still where the bundle's settings say."""
    uri = bundle.config.dataset_uri
    try:
        card = None if uri is None else read_card(uri)
    except MetsError:
        return None
    return card if card is not None and card.content_sha256 == bundle.facts.dataset_sha256 else None


def read_figures(uri: str) -> tuple[tuple[str, str], ...]:
    """Cross-validated figures of the default recipe in the JSON that benchmarks/recipe.py prints.

    Raises ConfigError for any other content, DatasetError where it cannot be read.
    """
    content = storage.read_bytes(storage.absolute(uri))
    try:
        tasks = json.loads(content)["default"]["tasks"]
        return tuple((task, "{:.3f} [{:.3f}, {:.3f}]".format(*interval)) for task, interval in tasks.items())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`figures_uri` is `{uri}`, which holds no cross-validated figures: {type(error).__name__}: {error}",
            hint="give the last line that `python benchmarks/recipe.py …` printed on stdout",
        ) from error
