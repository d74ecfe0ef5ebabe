"""URIs as text: a local path, or any scheme that fsspec knows."""

import re
from pathlib import Path

_UNUSUAL = re.compile(r"//|/\.|/$")  # parts that a Path leaves out


def is_local(uri: str) -> bool:
    """True for a path of this machine, with or without `file://`."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """A local path made absolute, `~` expanded; any other URI as it is. Workers may start in another folder."""
    if uri.startswith("/") and not _UNUSUAL.search(uri):
        return uri  # as of most records: without the 10 µs of a Path
    return uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it, one `/` between each."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def local_path(uri: str) -> str:
    """The absolute path that a local URI names."""
    return absolute(uri.removeprefix("file://"))
