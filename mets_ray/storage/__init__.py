"""A URI becomes a filesystem; files are written whole or not at all, and checked when they are read."""

from mets_ray.storage.faults import (
    DamagedFileError,
    MissingFileError,
    NotAFileError,
    NotAFolderError,
    TooLargeError,
    UnreachableError,
)
from mets_ray.storage.files import (
    Entry,
    create_bytes,
    delete_files,
    exists,
    folder_bytes,
    list_files,
    list_folder,
    list_sizes,
    open_file,
    read_bytes,
    write_bytes,
)
from mets_ray.storage.folders import download_folder, publish_folder
from mets_ray.storage.leases import FolderInUseError, Lease, hold
from mets_ray.storage.names import name_fault, path_fault
from mets_ray.storage.patience import patience
from mets_ray.storage.pieces import Piece, cut, is_whole, open_checked
from mets_ray.storage.resends import RESENDS
from mets_ray.storage.sealed import Sealed, digest_of, digest_of_rows, seal, sealed_facts, unseal
from mets_ray.storage.stores import arrow_filesystem, filesystem
from mets_ray.storage.uris import absolute, is_local, join

__all__ = [
    "RESENDS",
    "DamagedFileError",
    "Entry",
    "FolderInUseError",
    "Lease",
    "MissingFileError",
    "NotAFileError",
    "NotAFolderError",
    "Piece",
    "Sealed",
    "TooLargeError",
    "UnreachableError",
    "absolute",
    "arrow_filesystem",
    "create_bytes",
    "cut",
    "delete_files",
    "digest_of",
    "digest_of_rows",
    "download_folder",
    "exists",
    "filesystem",
    "folder_bytes",
    "hold",
    "is_local",
    "is_whole",
    "join",
    "list_files",
    "list_folder",
    "list_sizes",
    "name_fault",
    "open_checked",
    "open_file",
    "path_fault",
    "patience",
    "publish_folder",
    "read_bytes",
    "seal",
    "sealed_facts",
    "unseal",
    "write_bytes",
]
