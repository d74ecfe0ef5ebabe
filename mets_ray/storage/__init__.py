"""A URI becomes a filesystem; files are written whole or not at all, and checked when they are read."""

from mets_ray.storage.faults import DamagedFileError, MissingFileError
from mets_ray.storage.files import create_bytes, exists, list_files, read_bytes, write_bytes
from mets_ray.storage.folders import download_folder, publish_folder
from mets_ray.storage.leases import FolderInUseError, Lease, hold
from mets_ray.storage.names import name_fault, path_fault
from mets_ray.storage.pieces import Piece, cut, is_whole, open_checked
from mets_ray.storage.resends import RESENDS
from mets_ray.storage.sealed import Sealed, digest_of, seal, unseal
from mets_ray.storage.stores import arrow_filesystem, filesystem
from mets_ray.storage.uris import absolute, is_local, join

__all__ = [
    "RESENDS",
    "DamagedFileError",
    "FolderInUseError",
    "Lease",
    "MissingFileError",
    "Piece",
    "Sealed",
    "absolute",
    "arrow_filesystem",
    "create_bytes",
    "cut",
    "digest_of",
    "download_folder",
    "exists",
    "filesystem",
    "hold",
    "is_local",
    "is_whole",
    "join",
    "list_files",
    "name_fault",
    "open_checked",
    "path_fault",
    "publish_folder",
    "read_bytes",
    "seal",
    "unseal",
    "write_bytes",
]
