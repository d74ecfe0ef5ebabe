"""Where a bundle lies: under a name in this package, on the Hugging Face hub, or anywhere in storage.

Each folder beside this file that holds a `bundle.json` is a packaged bundle, and its name is a bundle_uri. A name
means the package and not a folder of that name; `./name` means the folder. Jobs and replicas hand names and `hf://`
URIs on as they are, so that each machine finds its own copy.
"""

from pathlib import Path

from mets_ray import storage
from mets_ray.bundles.hub import HUB_PREFIX, parse_hub_uri, snapshot
from mets_ray.errors import CheckpointError

DEMO_NAME = "ptbxl-demo"
"""The bundle that `mets-ray serve` answers with before anything was trained."""

MANIFEST_NAME = "bundle.json"
PACKAGED_FOLDER = Path(__file__).parent


def packaged_names() -> list[str]:
    """The bundles in this installation, sorted."""
    return sorted(path.parent.name for path in PACKAGED_FOLDER.glob(f"*/{MANIFEST_NAME}"))


def is_packaged(bundle_uri: str) -> bool:
    """Whether `bundle_uri` is the name of a packaged bundle."""
    return "/" not in bundle_uri and bundle_uri in packaged_names()


def locate(bundle_uri: str) -> str:
    """The URI of the folder that holds a bundle: of a packaged one by its name, of a copy of one on the hub, or itself.

    Raises CheckpointError as `hub.snapshot`.
    """
    if bundle_uri.startswith(HUB_PREFIX):
        return str(snapshot(bundle_uri))
    return str(PACKAGED_FOLDER / bundle_uri) if is_packaged(bundle_uri) else bundle_uri


def absolute(bundle_uri: str) -> str:
    """A local path made absolute; names and other URIs as they are."""
    return bundle_uri if is_packaged(bundle_uri) else storage.absolute(bundle_uri)


def check_uri(bundle_uri: str) -> None:
    """Raise CheckpointError for what can be seen to be no bundle before anything is fetched or started: a word that is
    neither a path nor a name, or an `hf://` URI without a commit."""
    if bundle_uri.startswith(HUB_PREFIX):
        parse_hub_uri(bundle_uri)
    elif "/" not in bundle_uri and not is_packaged(bundle_uri) and not Path(bundle_uri).expanduser().exists():
        raise CheckpointError(f"`{bundle_uri}` is neither a folder nor a packaged bundle", hint=what_is_packaged())


def what_is_packaged() -> str:
    """For hints: which names there are."""
    if names := packaged_names():
        return f"packaged in this installation: {', '.join(f'`{name}`' for name in names)}"
    return "no bundle is packaged in this installation"
