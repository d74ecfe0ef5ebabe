"""What was measured beside a bundle goes along to another one with the same weights, whose digest it then names."""

from dataclasses import replace
from pathlib import Path

from mets_ray.bundles import MANIFEST_NAME
from mets_ray.model.bundle import Bundle, read_facts, signing_key
from mets_ray.model.calibrations import FOLDER_NAME as CALIBRATION_FOLDER
from mets_ray.model.input_references import reference_uri
from mets_ray.storage import unseal


def carry_over(bundle: Bundle, folder: Path) -> None:
    """Write the calibrations and the reference of inputs of `bundle` beside the one in `folder`: an ECG has the same
    embedding in both, and a class the same vector, so they hold for it as well."""
    run, digest = read_facts(str(folder)).run, unseal((folder / MANIFEST_NAME).read_bytes()).digest
    key = signing_key()
    for file in bundle.calibrations.files:
        _write(folder / CALIBRATION_FOLDER / file.name, replace(file, run=run, bundle_digest=digest).to_bytes(key))
    if (reference := bundle.reference) is not None:
        path = Path(reference_uri(str(folder)))
        _write(path, replace(reference, run=run, bundle_digest=digest).to_bytes(key))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
