"""Single files: read whole, and written so that readers see all of one or none of it."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mets_ray.storage.faults import MissingFileError, store_faults
from mets_ray.storage.stores import filesystem
from mets_ray.storage.uris import is_local, join, local_path


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises MissingFileError, and DatasetError for every other failure."""
    if is_local(uri):
        with store_faults(uri):
            return Path(local_path(uri)).read_bytes()
    fs, path = filesystem(uri)
    with store_faults(uri, fs):
        # s3fs would ask for the size first, which doubles the requests for small files.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        return bytes(fs.cat_file(path, **options))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file that readers see whole or not at all; an older one is replaced. Raises DatasetError.

    Local: a temporary name in the same folder, then a rename, each on the disk before the next, so that a power cut
    leaves no name without its content. Object stores show an upload only once it is complete.
    """
    if not is_local(uri):
        fs, path = filesystem(uri)
        with store_faults(uri, fs):
            fs.pipe_file(path, data)
        return
    target = Path(local_path(uri))
    with store_faults(uri), _finished_sibling(target, data) as finished:
        finished.replace(target)
        sync(target.parent)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a new file, whole or not at all; False where there is one already, whoever wrote it. Raises DatasetError.

    Local: a hard link of a finished temporary file. Object stores: a conditional upload (S3 `If-None-Match`).
    """
    if not is_local(uri):
        fs, path = filesystem(uri)
        with store_faults(uri, fs):
            try:
                fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True
    target = Path(local_path(uri))
    with store_faults(uri), _finished_sibling(target, data) as finished:
        try:
            os.link(finished, target)
        except FileExistsError:
            return False
        sync(target.parent)
    return True


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises DatasetError where the store does not answer or has no such bucket."""
    fs, path = filesystem(uri)
    try:
        with store_faults(uri, fs):
            fs.info(path)
    except MissingFileError:
        return False
    return True


def list_files(uri: str, suffix: str = "") -> list[str]:
    """URIs of all files at any depth below `uri` that end in `suffix`, sorted; empty where there is no such folder.

    Local links to folders are followed, and each folder is listed once. Unfinished files of `write_bytes` are skipped.
    Raises DatasetError.
    """
    fs, root = filesystem(uri)
    try:
        with store_faults(uri, fs):
            found = list(_local_files(root)) if is_local(uri) else fs.find(root)
    except MissingFileError:
        return []
    relative = [path[len(root) :].lstrip("/") for path in found]
    return [join(uri, path) for path in sorted(relative) if path.endswith(suffix) and not _is_temporary(path)]


def _local_files(root: str) -> Iterator[str]:
    """Every file below `root`; a folder that is also linked is listed under its own name, or else the first link's.

    A link to a folder that contains it would lead round in a circle, or out of `root`, and is not followed.
    """
    folders, links, listed = [root], list[str](), set[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in listed:
            continue
        listed.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # gone by now, not a folder, or closed to us (lost+found): as in a listing of a store
            continue
        for entry in entries:
            is_link = entry.is_symlink()
            if not (Path(entry.path).is_dir() if is_link else entry.is_dir()):
                yield entry.path
            elif not is_link:
                folders.append(entry.path)
            elif not f"{real}/".startswith(f"{os.path.realpath(entry.path).rstrip('/')}/"):
                links.append(entry.path)


def temporary_sibling(target: Path) -> Path:
    """A name beside `target` for a file or folder that is not finished; `list_files` skips it."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk. Windows cannot do it for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _finished_sibling(target: Path, data: bytes) -> Iterator[Path]:
    """A whole file with `data` beside `target`, to be moved or linked there; what is left of it is removed."""
    temporary = temporary_sibling(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(data)
        sync(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _is_temporary(path: str) -> bool:
    return any(part.startswith(".") and part.endswith(".tmp") for part in path.split("/"))
