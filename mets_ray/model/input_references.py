"""The file that holds the reference of a bundle's inputs: what the ECGs looked like that it was made with.

reference/inputs.json lies beside the bundle's files and is not one of them, as calibrations do: `bundle.json` does not
list it, and it names the bundle by its digest. It has a digest of its own, and a signature as bundles do where there is
a key. Its content is counts and moments, nothing of a single ECG.
"""

import json
from dataclasses import dataclass
from typing import Any

from mets_ray import storage
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.signal_features import feature_names
from mets_ray.errors import CheckpointError, MetsError
from mets_ray.metrics.input_reference import InputReference

FOLDER_NAME, FILE_NAME = "reference", "inputs.json"
_SCHEMA_VERSION = 1
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class ReferenceFile:
    """The reference for the bundle with this digest. `source`, `dataset_sha256`: of the data set that trained it."""

    run: str
    bundle_digest: str
    source: str
    dataset_sha256: str
    synthetic: bool
    reference: InputReference

    def to_bytes(self, key: str = "") -> bytes:
        """The file: JSON with its digest, and with a key its signature."""
        facts: dict[str, Any] = {"schema_version": _SCHEMA_VERSION} | vars(self)
        return storage.seal(json.dumps(facts | {"reference": self.reference.to_json()}, allow_nan=False), key)

    @classmethod
    def from_bytes(cls, data: bytes, where: str, key: str = "") -> "ReferenceFile":
        """What `to_bytes` wrote. Raises CheckpointError for a damaged file, another schema, or a missing signature."""
        try:
            facts = storage.sealed_facts(data, _SCHEMA_VERSION, key)
            reference = InputReference.from_json(facts["reference"])
            if unknown := {row.name for row in reference.features} - set(feature_names(LEADS)):
                raise ValueError(f"this version does not measure {', '.join(sorted(unknown))}")
            return cls(
                run=str(facts["run"]),
                bundle_digest=str(facts["bundle_digest"]),
                source=str(facts["source"]),
                dataset_sha256=str(facts["dataset_sha256"]),
                synthetic=bool(facts["synthetic"]),
                reference=reference,
            )
        except (KeyError, TypeError, ValueError, MetsError) as error:
            why = error.fact if isinstance(error, MetsError) else str(error)
            raise CheckpointError(
                f"the reference of inputs cannot be used: {why}",
                where=where,
                hint="delete it and run evaluate on the data set that trained the bundle: it rewrites the file",
            ) from error


def reference_uri(folder_uri: str) -> str:
    """Where it lies in a bundle's folder, or in a result's."""
    return storage.join(folder_uri, FOLDER_NAME, FILE_NAME)


def require_reference(uri: str, bundle_digest: str, key: str = "") -> ReferenceFile:
    """The reference in a file. Raises CheckpointError if it cannot be used: absent, damaged, of another bundle."""
    try:
        data = storage.read_bytes(uri, max_bytes=_MOST_BYTES)
    except storage.MissingFileError as error:
        raise CheckpointError(
            f"`{uri}` is not a reference of inputs: there is no such file",
            hint="give the file that evaluate printed as `reference`",
        ) from error
    file = ReferenceFile.from_bytes(data, uri, key)
    if file.bundle_digest != bundle_digest:
        raise CheckpointError(
            f"the reference of inputs is of another bundle: `{file.run}` with digest {file.bundle_digest[:8]}, and "
            f"this one has {bundle_digest[:8]}",
            where=uri,
            hint="evaluate this bundle on the data set that trained it: that writes a reference of its own",
        )
    return file


def find_reference(uri: str, bundle_digest: str, key: str = "") -> tuple[ReferenceFile | None, str]:
    """The reference in a bundle's folder, or None and why there is none that can be used."""
    try:
        if not storage.exists(uri):
            return None, "the bundle has no reference of its inputs"
        return require_reference(uri, bundle_digest, key), ""
    except MetsError as error:
        return None, error.fact
