"""A URI becomes a filesystem; files are written whole or not at all."""

from mets_ray.storage.files import (
    MissingFileError,
    absolute,
    arrow_filesystem,
    create_bytes,
    download_folder,
    exists,
    filesystem,
    is_local,
    join,
    list_files,
    publish_folder,
    read_bytes,
    retries,
    write_bytes,
)

__all__ = [
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
    "retries",
    "write_bytes",
]
