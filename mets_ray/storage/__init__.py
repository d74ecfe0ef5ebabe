"""A URI becomes a filesystem; files are written whole or not at all."""

from mets_ray.storage.faults import MissingFileError
from mets_ray.storage.files import create_bytes, exists, list_files, read_bytes, write_bytes
from mets_ray.storage.folders import download_folder, publish_folder
from mets_ray.storage.resends import RESENDS
from mets_ray.storage.stores import arrow_filesystem, filesystem
from mets_ray.storage.uris import absolute, is_local, join

__all__ = [
    "RESENDS",
    "MissingFileError",
    "absolute",
    "arrow_filesystem",
    "create_bytes",
    "download_folder",
    "exists",
    "filesystem",
    "is_local",
    "join",
    "list_files",
    "publish_folder",
    "read_bytes",
    "write_bytes",
]
