"""The only place where a URI becomes a filesystem, and where files are published whole or not at all.

A URI is a local path, or any scheme that fsspec knows: `s3://` through s3fs, `gs://` through gcsfs, `az://` and
`abfs://` through adlfs. Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, FSSPEC_*), never from our configuration.

Every failure is a DatasetError that says what the store answered. A file that is absent from a store that answers is
the subclass MissingFileError, so that a reader can count one absent record and still stop when the store is gone.
"""

import functools
import os
import posixpath
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs

from mets_ray.errors import ConfigError, DatasetError, MetsError

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}

# A closed endpoint fails within 3 s and one that lets nobody connect in 2 x 5 s. One that has answered, or accepts and
# then says nothing for 20 s, is asked again by `s3.PatientCall`, not by botocore. 64: prepare reads from many threads.
_S3_CLIENT = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    "max_pool_connections": 64,
}

# By name, so that no store's library need be installed.
_REFUSED = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
}

_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionError",
    "HTTPClientError",
    "ClientConnectionError",
    "FSTimeoutError",
    "ServiceRequestError",
    "TimeoutError",
}


class MissingFileError(DatasetError):
    """The store answers, and has no such file."""


def is_local(uri: str) -> bool:
    """True for a path of this machine, with or without `file://`."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """A local path made absolute, `~` expanded; any other URI as it is. Workers may start in another folder."""
    return uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it, one `/` between each."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem that `uri` names and the path inside it.

    Raises ConfigError for an unknown scheme or one whose extra is not installed.
    """
    if is_local(uri):
        return fsspec.filesystem("file"), _local_path(uri)
    scheme = uri.split("://", 1)[0]
    # A listing that one worker has cached would hide what another worker writes.
    options: dict[str, Any] = {"use_listings_cache": False} if scheme in _EXTRAS else {}
    if scheme in ("s3", "s3a"):
        options["config_kwargs"] = _S3_CLIENT | fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
    with _facts(uri):
        try:
            if scheme in ("s3", "s3a"):
                from mets_ray.storage.s3 import PatientS3FileSystem

                return PatientS3FileSystem(**options), PatientS3FileSystem._strip_protocol(uri).rstrip("/")
            fs, path = fsspec.url_to_fs(uri, **options)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(scheme)
            hint = f"pip install mets_ray[{extra}]" if extra else f"use a local path or one of {', '.join(_EXTRAS)}"
            raise ConfigError(f"`{uri}` cannot be opened: {error}", hint=hint) from error
    return fs, path.rstrip("/")


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same as `filesystem`, for pyarrow."""
    if is_local(uri):
        return pyarrow.fs.LocalFileSystem(), _local_path(uri)
    fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def retries() -> int:
    """How many requests to object stores this process has sent again, because the first went wrong by bad luck."""
    s3 = sys.modules.get("mets_ray.storage.s3")
    return s3.retries() if s3 is not None else 0


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises MissingFileError, and DatasetError for every other failure."""
    if is_local(uri):
        with _facts(uri):
            return Path(_local_path(uri)).read_bytes()
    fs, path = filesystem(uri)
    with _facts(uri, fs):
        # s3fs would ask for the size first, which doubles the requests for small files.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        return bytes(fs.cat_file(path, **options))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file that readers see whole or not at all; an older one is replaced. Raises DatasetError.

    Local: a temporary name in the same folder, then a rename. Object stores show an upload only once it is complete.
    """
    if not is_local(uri):
        fs, path = filesystem(uri)
        with _facts(uri, fs):
            fs.pipe_file(path, data)
        return
    target = Path(_local_path(uri))
    with _facts(uri), _finished_sibling(target, data) as finished:
        finished.replace(target)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a new file, whole or not at all; False where there is one already, whoever wrote it. Raises DatasetError.

    Local: a hard link of a finished temporary file. Object stores: a conditional upload (S3 `If-None-Match`).
    """
    if not is_local(uri):
        fs, path = filesystem(uri)
        with _facts(uri, fs):
            try:
                fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True
    target = Path(_local_path(uri))
    with _facts(uri), _finished_sibling(target, data) as finished:
        try:
            os.link(finished, target)
        except FileExistsError:
            return False
    return True


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises DatasetError where the store does not answer or has no such bucket."""
    fs, path = filesystem(uri)
    try:
        with _facts(uri, fs):
            fs.info(path)
    except MissingFileError:
        return False
    return True


def list_files(uri: str, suffix: str = "") -> list[str]:
    """URIs of all files at any depth below `uri` that end in `suffix`, sorted; empty where there is no such folder.

    Unfinished files of `write_bytes` are left out. Raises DatasetError.
    """
    fs, root = filesystem(uri)
    try:
        with _facts(uri, fs):
            if not fs.isdir(root) and is_local(uri):
                return []
            found = fs.find(root)
    except MissingFileError:
        return []
    relative = [path[len(root) :].lstrip("/") for path in found]
    return [join(uri, path) for path in sorted(relative) if path.endswith(suffix) and not _is_temporary(path)]


def publish_folder(local_folder: str | Path, uri: str, manifest_name: str) -> None:
    """Copy a local folder to `uri`, so that a reader who finds `manifest_name` there finds the whole of it.

    Local: copied beside `uri` under a temporary name, then renamed; a folder that stands there already is moved away
    first. Object stores: an older manifest is removed, and the new one is uploaded last. Raises DatasetError.
    """
    source = Path(local_folder)
    if not (source / manifest_name).is_file():
        raise MissingFileError(f"`{source}` has no `{manifest_name}`, so it cannot be published")
    if is_local(uri):
        with _facts(uri):
            _publish_local(source, Path(_local_path(uri)))
        return
    fs, root = filesystem(uri)
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    with _facts(uri, fs):
        if exists(join(uri, manifest_name)):
            fs.rm_file(f"{root}/{manifest_name}")
        for name in [name for name in names if name != manifest_name] + [manifest_name]:
            fs.put_file(str(source / name), f"{root}/{name}")


def download_folder(uri: str, local_folder: str | Path) -> None:
    """Copy every file below `uri` into `local_folder`. Raises MissingFileError where there is none, DatasetError."""
    target = Path(local_folder)
    fs, root = filesystem(uri)
    uris = list_files(uri)
    if not uris:
        raise MissingFileError(f"`{uri}` holds no files")
    for file_uri in uris:
        name = file_uri[len(uri.rstrip("/")) + 1 :]
        if ".." in name.split("/"):
            raise DatasetError(f"`{file_uri}` would be written outside the folder that it is copied to")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with _facts(file_uri, fs):
            fs.get_file(f"{root}/{name}", str(target / name))


def _local_path(uri: str) -> str:
    return absolute(uri.removeprefix("file://"))


def _temporary_sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


@contextmanager
def _finished_sibling(target: Path, data: bytes) -> Iterator[Path]:
    """A whole file with `data` beside `target`, to be moved or linked there; what is left of it is removed."""
    temporary = _temporary_sibling(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _is_temporary(path: str) -> bool:
    return any(part.startswith(".") and part.endswith(".tmp") for part in path.split("/"))


def _publish_local(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary_sibling(target), _temporary_sibling(target)
    try:
        shutil.copytree(source, temporary)
        # A folder cannot replace one that has files. A reader between these two lines finds none, never a mixture.
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _facts(uri: str, fs: fsspec.AbstractFileSystem | None = None) -> Iterator[None]:
    """Turn whatever a store's library raises into a DatasetError with what it said."""
    try:
        yield
    except MetsError:
        raise
    except FileNotFoundError as error:
        if fs is not None:
            _require_bucket(fs, filesystem(uri)[1])
        raise MissingFileError(f"`{uri}` does not exist") from error
    except Exception as error:
        names = {kind.__name__ for link in _causes(error) for kind in type(link).__mro__}
        if isinstance(error, PermissionError) or names & _REFUSED:
            where, hint = f"access to `{uri}` is refused", "check the credentials in the environment and their rights"
            hint = "check the file's permissions" if is_local(uri) else hint
        elif names & _UNREACHABLE:
            where, hint = f"the store of `{uri}` cannot be reached", "check the network and AWS_ENDPOINT_URL"
        elif any(_status(link) >= 500 for link in _causes(error)):
            where, hint = f"the store of `{uri}` answers with errors of its own", "it was asked again; try later"
        else:
            where, hint = f"`{uri}` cannot be used", ""
        raise DatasetError(f"{where}: {type(error).__name__}: {error}", hint=hint) from error


def _status(error: BaseException) -> int:
    metadata: dict[str, Any] = getattr(error, "response", None) or {}
    return int(metadata.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(metadata, dict) else 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _require_bucket(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Raise DatasetError where S3 has no such bucket: for each file in it, it answers "not found" only."""
    if "s3" in fs.protocol:
        _require_s3_bucket(fs, posixpath.normpath(path).split("/")[0], os.getpid())


@functools.lru_cache(maxsize=64)
def _require_s3_bucket(fs: Any, bucket: str, _process: int) -> None:
    # Only "it is there" is remembered: lru_cache keeps no exception.
    try:
        fs.call_s3("head_bucket", Bucket=bucket)
    except PermissionError:
        return  # one may read files without the right to list the bucket
    except FileNotFoundError as error:
        raise DatasetError(
            f"there is no bucket `{bucket}`",
            where=f"s3://{bucket}",
            hint="check the URI and the endpoint, or create the bucket",
        ) from error
