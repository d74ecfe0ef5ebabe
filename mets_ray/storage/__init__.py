"""A URI becomes a filesystem; files are written whole or not at all."""

from mets_ray.storage.faults import MissingFileError, NotAFolderError, UnreachableError
from mets_ray.storage.files import (
    Entry,
    create_bytes,
    delete_files,
    exists,
    folder_bytes,
    list_files,
    list_folder,
    read_bytes,
    write_bytes,
)
from mets_ray.storage.folders import download_folder, publish_folder
from mets_ray.storage.patience import patience
from mets_ray.storage.resends import RESENDS
from mets_ray.storage.stores import arrow_filesystem, filesystem
from mets_ray.storage.uris import absolute, is_local, join

__all__ = [
    "RESENDS",
    "Entry",
    "MissingFileError",
    "NotAFolderError",
    "UnreachableError",
    "absolute",
    "arrow_filesystem",
    "create_bytes",
    "delete_files",
    "download_folder",
    "exists",
    "filesystem",
    "folder_bytes",
    "is_local",
    "join",
    "list_files",
    "list_folder",
    "patience",
    "publish_folder",
    "read_bytes",
    "write_bytes",
]
