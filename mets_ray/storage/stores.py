"""The only place where a URI becomes a filesystem: `s3://` through s3fs, `gs://` through gcsfs, `az://` and `abfs://`
through adlfs.

Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, FSSPEC_*), never from our configuration.
"""

from typing import Any

import fsspec
import pyarrow.fs

from mets_ray.errors import ConfigError
from mets_ray.storage.faults import store_faults
from mets_ray.storage.uris import is_local, local_path

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}

# A closed endpoint fails within 3 s, one that accepts no connection after 2 x 5 s. One that has answered, or accepts a
# connection and sends nothing for 20 s, is retried by `s3.RetryingCall`, not by botocore. 64: prepare reads from many
# threads.
_S3_CLIENT = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    "max_pool_connections": 64,
}


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem that `uri` names and the path inside it.

    Raises ConfigError for an unknown scheme or one whose extra is not installed.
    """
    if is_local(uri):
        return fsspec.filesystem("file"), local_path(uri)
    scheme = uri.split("://", 1)[0]
    # A listing that one worker has cached would hide what another worker writes.
    options: dict[str, Any] = {"use_listings_cache": False} if scheme in _EXTRAS else {}
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = _S3_CLIENT | fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
    with store_faults(uri):
        try:
            if scheme in ("s3", "s3a"):
                from mets_ray.storage.s3 import RetryingS3FileSystem

                return RetryingS3FileSystem(**options), RetryingS3FileSystem._strip_protocol(uri).rstrip("/")
            fs, path = fsspec.url_to_fs(uri, **options)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(scheme)
            hint = f"pip install mets_ray[{extra}]" if extra else f"use a local path or one of {', '.join(_EXTRAS)}"
            raise ConfigError(f"`{uri}` cannot be opened: {error}", hint=hint) from error
    return fs, path.rstrip("/")


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same as `filesystem`, for pyarrow."""
    if is_local(uri):
        return pyarrow.fs.LocalFileSystem(), local_path(uri)
    fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path
