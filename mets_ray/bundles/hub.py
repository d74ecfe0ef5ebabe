"""Bundles on the Hugging Face hub: `hf://user/name@COMMIT`, fetched into the hub's cache on this machine."""

import re
from pathlib import Path

from mets_ray.errors import CheckpointError, first_line

HUB_PREFIX = "hf://"
_URI = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOT_NEEDED = ["*.onnx", "*.md", ".gitattributes"]  # to load a bundle: they would double the download


def parse_hub_uri(uri: str) -> tuple[str, str]:
    """(repository, commit) of `hf://user/name@COMMIT`. Raises CheckpointError for any other form.

    A branch or a tag is refused: it may name other weights tomorrow.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise CheckpointError(
            f"`{uri}` is not of the form hf://user/name@COMMIT", hint="name a repository of the hub, and no file in it"
        )
    repository, revision = found["repository"], found["revision"]
    if not revision:
        raise CheckpointError(
            f"`{uri}` names no revision",
            hint=f"write hf://{repository}@COMMIT with the 40 hexadecimal digits of a commit of the repository, as "
            "its page lists them: a branch name moves",
        )
    if not _COMMIT.fullmatch(revision):
        raise CheckpointError(
            f"`{uri}` names the revision `{revision}`, not a commit of 40 hexadecimal digits",
            hint="a branch or a tag may move to other weights: write the commit that it names now",
        )
    return repository, revision


def snapshot(uri: str) -> Path:
    """The folder of the hub's cache that holds a bundle; what is not there yet is downloaded.

    The hub is `HF_ENDPOINT`, the token `HF_TOKEN`, the cache `HF_HOME`. Raises CheckpointError for a URI without a
    commit, and where the hub gives nothing.
    """
    from huggingface_hub import snapshot_download

    repository, commit = parse_hub_uri(uri)
    try:
        return Path(snapshot_download(repository, revision=commit, ignore_patterns=_NOT_NEEDED))
    except Exception as error:  # no such repository or commit, a private one without a token, no network
        raise CheckpointError(
            f"`{uri}` cannot be fetched: {first_line(error)}",
            hint="check the name and the commit; a private repository needs HF_TOKEN; without a network, the bundle "
            "must be in the hub's cache",
        ) from error
