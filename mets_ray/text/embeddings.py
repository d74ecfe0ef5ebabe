"""Frozen text embeddings: a table in memory, and the Parquet parts in storage that it is read from.

The LM is frozen, so (LM fingerprint, text) → vector is a constant. A part is written once under
`<store>/<fingerprint>/` and named after its own sha256, which is compared when it is read; a run that stops half-way
keeps its finished parts. Before version 0.2 parts were named after the hashes of their texts: of those, the texts are
compared and the vectors cannot be.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16, Int64

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.text.reports import text_id

_SHA256_DIGITS = 64


@dataclass(frozen=True)
class EmbeddingTable:
    """One vector per distinct text: `ids` sorted [text], `vectors` float16 [text, feature]."""

    ids: Int64[np.ndarray, " text"]
    vectors: Float16[np.ndarray, "text feature"]

    @classmethod
    def build(cls, ids: np.ndarray, vectors: np.ndarray) -> "EmbeddingTable":
        unique, first = np.unique(ids, return_index=True)
        return cls(unique, np.ascontiguousarray(vectors[first]))

    def lookup(self, ids: Int64[np.ndarray, " row"]) -> Float16[np.ndarray, "row feature"]:
        """Vectors of `ids`, in their order. Raises DatasetError for a text that was never embedded."""
        positions = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        if len(self.ids) == 0 or not np.array_equal(self.ids[positions], ids):
            raise DatasetError(
                "a report in the stream has no text embedding: the data set changed under the run",
                hint="start the job again: its text stage embeds what is missing",
            )
        vectors: np.ndarray = self.vectors[positions]
        return vectors

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Distinct texts that the table does not hold, in a fixed order."""
        known = set(self.ids.tolist())
        return sorted(text for text in set(texts) if text_id(text) not in known)


def part_folder(store_uri: str, fingerprint: str) -> str:
    """Where the parts of one LM lie. Raises DatasetError for a fingerprint that is no name, as a bundle may state."""
    if fault := storage.name_fault(fingerprint[:16]):
        raise DatasetError(f"{fingerprint[:80]!r} is not the fingerprint of a language model: {fault}")
    return storage.join(store_uri, fingerprint[:16])


def read_store(store_uri: str, fingerprint: str) -> EmbeddingTable:
    """All finished parts of one LM; empty, shape [0, 0], where there are none.

    Raises DamagedFileError for a part that is not what was written.
    """
    parts = [_read_part(uri) for uri in storage.list_files(part_folder(store_uri, fingerprint), suffix=".parquet")]
    if not parts:
        return EmbeddingTable(np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float16))
    if len({vectors.shape[1] for _, vectors in parts}) > 1:
        raise storage.DamagedFileError(
            f"the parts in `{part_folder(store_uri, fingerprint)}` have vectors of different lengths",
            hint="delete this folder: the next run embeds its texts again",
        )
    return EmbeddingTable.build(*map(np.concatenate, zip(*parts, strict=True)))


def _read_part(uri: str) -> tuple[Int64[np.ndarray, " text"], Float16[np.ndarray, "text feature"]]:
    data = storage.read_bytes(uri)
    stated = uri.rpartition("/")[2].removeprefix("part-").removesuffix(".parquet")
    try:
        older = len(stated) != _SHA256_DIGITS
        if not older and hashlib.sha256(data).hexdigest() != stated:
            raise ValueError("it is not what was written (its name is another sha256)")
        table = pq.read_table(io.BytesIO(data))
        ids = table["text_id"].to_numpy()
        vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
        hashes = table["text_hash"].to_pylist()
        if older and _name_of(hashes) != stated:
            raise ValueError("it holds other texts than its name says")
        if [int.from_bytes(bytes.fromhex(text)[:8], "big", signed=True) for text in hashes] != ids.tolist():
            raise ValueError("the ids of its texts do not fit the hashes of its texts")
        if vectors.dtype != np.float16 or (older and not np.isfinite(vectors).all()):
            raise ValueError("its vectors are not finite numbers of 16 bits")
    except (ValueError, LookupError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        raise storage.DamagedFileError(
            f"`{uri}` is damaged: {error}", hint="delete this file: the next run embeds its texts again"
        ) from error
    return ids, vectors


def _name_of(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def write_part(batch: dict[str, np.ndarray], *, folder_uri: str) -> tuple[int, int]:
    """Store one part. Returns how many reports and how many prompts the LM embedded for it."""
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in batch["text"]]
    flat = np.ascontiguousarray(batch["embedding"], dtype=np.float16)
    features = flat.shape[1]
    table = pa.table(
        {
            "text_id": pa.array(batch["text_id"], pa.int64()),
            "text_hash": pa.array(hashes, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), features),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    storage.write_bytes(storage.join(folder_uri, f"part-{hashlib.sha256(data).hexdigest()}.parquet"), data)
    embedded = batch["embedded"].astype(np.int64)
    prompts = batch["is_prompt"].astype(np.int64)
    return int((embedded * (1 - prompts)).sum()), int((embedded * prompts).sum())
