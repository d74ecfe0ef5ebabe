"""CSV tables of a source, read as text: no type or missing value is inferred."""

import hashlib
import io

import pandas as pd

from mets_ray import storage
from mets_ray.errors import DatasetError


def read_table(uri: str, required: tuple[str, ...]) -> tuple[pd.DataFrame, bytes]:
    """All cells as str ("" if empty), and the file's bytes.

    Raises DatasetError if it is missing, is not a UTF-8 CSV, has no rows or lacks one of the `required` columns.
    """
    data = storage.read_bytes(uri)
    try:
        table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:  # EmptyDataError and UnicodeDecodeError are ValueErrors
        raise DatasetError(f"`{uri}` is not a CSV in UTF-8: {error}") from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise DatasetError(
            f"column {', '.join(f'`{name}`' for name in missing)} is missing; there are "
            + ", ".join(f"`{name}`" for name in table.columns),
            where=uri,
            hint=f"the first line must name {', '.join(f'`{name}`' for name in required)}",
        )
    if table.empty:
        raise DatasetError(f"`{uri}` has no rows")
    return table, data


def sha256_of(*files: bytes) -> str:
    """One hash of several files in this order. Lengths are hashed too, so moving bytes between files changes it."""
    digest = hashlib.sha256()
    for data in files:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
