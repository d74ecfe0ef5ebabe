"""One check for every name that becomes a path: from tables, headers, cards, bundles, prompt files and listings."""

import re

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_NOT_PORTABLE = frozenset('<>:"|?*')
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))})
_MOST_BYTES = 200  # file systems take 255; what we add, such as `roc_` and `.parquet`, must fit too


def path_fault(path: str) -> str:
    """Why `path` must not be joined to a folder; "" if it stays below that folder on every system and in every store.

    Refused are empty and absolute paths, `..`, backslashes, drive letters, control characters, and what fsspec would
    read as another store (`s3://`, `a::b`).
    """
    if not path:
        return "it is empty"
    if _CONTROL.search(path):
        return "it has a control character"
    if _HALF_CHARACTER.search(path):
        return "it has half a character"
    if path.startswith("/") or _DRIVE.match(path):
        return "it is absolute"
    if "\\" in path:
        return "it has a backslash"
    if "://" in path or "::" in path:
        return "it names another store"
    # Windows drops blanks and dots at the end of a part, so `.. ` is `..` there.
    if any(part.strip(" .") == "" and part not in ("", ".") for part in path.split("/")):
        return "it leaves its folder with `..`"
    return ""


def name_fault(name: str) -> str:
    """Why a file must not be called `name`; "" if it can be, on every system.

    Besides what `path_fault` refuses: slashes, characters and words that Windows reserves, hidden files, and more than
    200 bytes.
    """
    if fault := path_fault(name):
        return fault
    if "/" in name:
        return "it has a slash"
    if reserved := sorted(_NOT_PORTABLE & set(name)):
        return f"it has the character {reserved[0]}"
    if name != name.strip(" ."):
        return "it begins or ends with a blank or a dot"
    if name.partition(".")[0].strip().lower() in _DEVICES:
        return "it is the name of a device on Windows"
    if len(name.encode()) > _MOST_BYTES:
        return f"it has {len(name.encode())} bytes, more than {_MOST_BYTES}"
    return ""
