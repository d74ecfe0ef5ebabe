"""Single files: read whole, and written so that readers see all of one or none of it."""

import errno
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mets_ray.storage.faults import MissingFileError, NotAFileError, NotAFolderError, TooLargeError, store_faults
from mets_ray.storage.stores import filesystem
from mets_ray.storage.uris import is_local, join, local_path


class Entry(NamedTuple):
    """One name in a folder."""

    name: str
    is_folder: bool
    size_bytes: int


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system without hard links


def read_bytes(uri: str, *, max_bytes: int | None = None) -> bytes:
    """The whole file. Raises MissingFileError, and DatasetError for every other failure.

    max_bytes: before it is read, a larger file is refused with TooLargeError, and what is no file (a folder, a pipe)
    with NotAFileError.
    """
    if max_bytes is not None:
        _require_small_file(uri, max_bytes)
    if is_local(uri):
        # A Path takes as long as reading a small file.
        with store_faults(uri), open(local_path(uri), "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    fs, path = filesystem(uri)
    with store_faults(uri, fs):
        # s3fs would ask for the size first, which doubles the requests for small files.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        return bytes(fs.cat_file(path, **options))


def open_file(uri: str) -> BinaryIO:
    """A file that stays open for reading parts of it. Raises MissingFileError, and DatasetError for every other failure
    to open it."""
    if is_local(uri):
        with store_faults(uri):
            return Path(local_path(uri)).open("rb")
    fs, path = filesystem(uri)
    with store_faults(uri, fs):
        file: BinaryIO = fs.open(path, "rb")
        return file


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
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _create_without_link(target, data):
                return False
        sync(target.parent)
    return True


def _create_without_link(target: Path, data: bytes) -> bool:
    """As `create_bytes` where the file system has no hard links (exFAT, many network mounts): a reader may see a part
    of it while it is written."""
    try:
        file = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(file, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
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


def list_sizes(uri: str) -> dict[str, int]:
    """The files of `list_files`, by their path below `uri`, with their size in bytes; no file is opened."""
    fs, root = filesystem(uri)
    try:
        with store_faults(uri, fs):
            if is_local(uri):
                sizes = {path: _size(path) for path in _local_files(root)}
            else:
                sizes = {path: int(info.get("size") or 0) for path, info in fs.find(root, detail=True).items()}
    except MissingFileError:
        return {}
    relative = {path[len(root) :].lstrip("/"): size for path, size in sizes.items()}
    return {path: relative[path] for path in sorted(relative) if not _is_temporary(path)}


def list_folder(uri: str) -> list[Entry]:
    """What is directly in a folder, by name; empty where there is none. Unfinished files are skipped.

    Raises NotAFolderError where `uri` is a file, and DatasetError for every other failure.
    """
    fs, root = filesystem(uri)
    try:
        with store_faults(uri, fs):
            found = fs.ls(root, detail=True)
    except MissingFileError:
        return []
    entries = {}
    for info in sorted(found, key=lambda info: info["type"] != "directory"):  # a file hides a folder of its name
        path = str(info["name"]).rstrip("/")
        if path == root and info["type"] != "directory":
            raise NotAFolderError(f"`{uri}` is a file, not a folder")
        name = path.rsplit("/", 1)[-1]
        if path != root and not _is_temporary(name):
            is_folder = info["type"] == "directory" or bool(info.get("islink") and Path(path).is_dir())
            entries[name] = Entry(name, is_folder, int(info.get("size") or 0))
    return [entries[name] for name in sorted(entries)]


def folder_bytes(uri: str, *, max_file_bytes: int) -> int:
    """Bytes of all files at any depth below `uri`; 0 where there is no such folder. Raises DatasetError.

    max_file_bytes: larger files are left out.
    """
    fs, root = filesystem(uri)
    try:
        with store_faults(uri, fs):
            sizes = [int(info.get("size") or 0) for info in fs.find(root, detail=True).values()]
    except MissingFileError:
        return 0
    return sum(size for size in sizes if size <= max_file_bytes)


def delete_files(uris: Sequence[str]) -> None:
    """Delete files, some of which may be gone already, and local folders that are empty then. Raises DatasetError."""
    for uri in (uri for uri in uris if is_local(uri)):
        path = Path(local_path(uri))
        with store_faults(uri):
            if path.is_symlink() or not path.is_dir():  # a folder in the place of a file is left alone
                path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()
    remote = [uri for uri in uris if not is_local(uri)]
    if remote:
        fs, _ = filesystem(remote[0])
        with store_faults(remote[0], fs), suppress(FileNotFoundError):
            fs.rm([filesystem(uri)[1] for uri in remote])


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


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a link to nowhere: whoever opens it is told
        return 0


def temporary_sibling(target: Path) -> Path:
    """A name beside `target` for a file or folder that is not finished; `list_files` skips it."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def _require_small_file(uri: str, max_bytes: int) -> None:
    if is_local(uri):
        with store_faults(uri):
            status = Path(local_path(uri)).stat()
        is_file, size = stat.S_ISREG(status.st_mode), status.st_size
    else:
        fs, path = filesystem(uri)
        with store_faults(uri, fs):
            info = fs.info(path)
        is_file, size = info["type"] == "file", int(info.get("size") or 0)
    if not is_file:
        raise NotAFileError(f"`{uri}` is not a file")
    if size > max_bytes:
        raise TooLargeError(f"`{uri}` has {size} bytes; at most {max_bytes} are read")


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
