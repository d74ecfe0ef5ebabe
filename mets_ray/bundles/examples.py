"""Real ECGs that lie beside a bundle, for trying it: `examples/examples.json` and the records that it names."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.bundles import locate
from mets_ray.errors import CheckpointError

EXAMPLES_FOLDER = "examples"
LIST_NAME = "examples.json"


def _plain(name: str) -> str:
    if fault := storage.name_fault(name):
        raise ValueError(f"{name!r} is not the name of a record in this folder: {fault}")
    return name


class BundleExample(BaseModel):
    """One WFDB record; `finding` is what its data set says of it, in words that can be asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: Annotated[str, AfterValidator(_plain)]
    finding: str
    title: str


class BundleExamples(BaseModel):
    """`credit`: whose ECGs they are, and their licence. No patient of theirs trained the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    credit: str
    examples: tuple[BundleExample, ...]


def read_examples(bundle_uri: str) -> tuple[str, BundleExamples | None]:
    """(URI of the folder of examples, what is in it), None for a bundle without examples.

    Raises CheckpointError for a list that is damaged, and as `locate`.
    """
    folder = storage.join(locate(bundle_uri), EXAMPLES_FOLDER)
    list_uri = storage.join(folder, LIST_NAME)
    if not storage.exists(list_uri):
        return folder, None
    try:
        return folder, BundleExamples.model_validate_json(storage.read_bytes(list_uri))
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"`{LIST_NAME}` is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=list_uri,
            hint="copy the whole bundle again",
        ) from error
