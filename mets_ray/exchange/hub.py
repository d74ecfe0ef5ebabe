"""Uploads an exported folder to the Hugging Face hub."""

import os
from pathlib import Path

from mets_ray.errors import CheckpointError, ConfigError, first_line

_TOKEN_VARIABLE = "HF_TOKEN"


def require_token() -> str:
    """The token of the environment; none is looked for elsewhere. Raises ConfigError where there is none."""
    token = os.environ.get(_TOKEN_VARIABLE, "")
    if not token:
        raise ConfigError(
            f"`push_to_hub` is set, and the environment variable {_TOKEN_VARIABLE} is not",
            hint=f"make a token with write access on the hub's page, and export {_TOKEN_VARIABLE}",
        )
    return token


def push(folder: Path, repository: str, *, private: bool, token: str) -> str:
    """Upload all files of `folder` in one commit; the repository is made if there is none. Returns its `hf://` URI.

    Raises CheckpointError where the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of mets_ray")
    except Exception as error:  # a wrong token, no right to write, no network
        raise CheckpointError(
            f"`{repository}` could not be pushed to the hub: {first_line(error)}",
            hint=f"check the name, and that {_TOKEN_VARIABLE} may write there; the folder itself is written",
        ) from error
    return f"hf://{repository}@{commit.oid}"
