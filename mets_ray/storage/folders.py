"""Whole folders: published so that a reader finds all of it or none, and downloaded."""

import shutil
from pathlib import Path

from mets_ray.errors import DatasetError
from mets_ray.storage.faults import MissingFileError, store_faults
from mets_ray.storage.files import exists, list_files, sync, temporary_sibling
from mets_ray.storage.names import path_fault
from mets_ray.storage.stores import filesystem
from mets_ray.storage.uris import is_local, join, local_path


def publish_folder(local_folder: str | Path, uri: str, manifest_name: str) -> None:
    """Copy a local folder to `uri`, so that a reader who finds `manifest_name` there finds the whole of it.

    Local: copied beside `uri` under a temporary name, then renamed once all of it is on the disk; a folder that is
    already there is moved away first. Object stores: an older manifest is removed, and the new one is uploaded last.
    Raises DatasetError.
    """
    source = Path(local_folder)
    if not (source / manifest_name).is_file():
        raise MissingFileError(f"`{source}` has no `{manifest_name}`, so it cannot be published")
    if is_local(uri):
        with store_faults(uri):
            _publish_local(source, Path(local_path(uri)))
        return
    fs, root = filesystem(uri)
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    with store_faults(uri, fs):
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
        if fault := path_fault(name):
            raise DatasetError(f"`{file_uri}` would be written outside the folder that it is copied to: {fault}")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with store_faults(file_uri, fs):
            fs.get_file(f"{root}/{name}", str(target / name))


def _publish_local(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = temporary_sibling(target), temporary_sibling(target)
    try:
        shutil.copytree(source, temporary)
        for path in [*temporary.rglob("*"), temporary]:
            sync(path)
        # A folder cannot replace one that has files. A reader between these two lines finds none, never a mixture.
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
