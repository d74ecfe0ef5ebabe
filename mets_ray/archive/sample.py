"""A sample of an archive's embeddings in memory: how a similarity ranks among all records, and how much they vary."""

import hashlib
import io

import numpy as np
from jaxtyping import Float, Float32

from mets_ray import storage

SAMPLE_NAME = "sample.npy"
SAMPLE_RECORDS = 32_768
"""16 MB at 128 dimensions. A percentile of 99.9 is then known to within 0.02 (one standard deviation)."""

_FLAT = 1e-6  # of similarities that do not differ: a single record, or copies of one


class Sample:
    """Embeddings of records drawn at random, or of all where there are fewer."""

    def __init__(self, embeddings: Float32[np.ndarray, "record dimension"]) -> None:
        self._embeddings = embeddings

    @classmethod
    def read(cls, uri: str, sha256: str) -> "Sample":
        """Raises DamagedFileError for another file than was written, and MissingFileError."""
        place = storage.join(uri, SAMPLE_NAME)
        data = storage.read_bytes(place)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise storage.DamagedFileError(
                f"`{place}` is not what was written", hint="run the same mets-ray index command again: it is rebuilt"
            )
        return cls(np.load(io.BytesIO(data)))

    def write(self, uri: str) -> str:
        """Write the file. Returns its sha256."""
        buffer = io.BytesIO()
        np.save(buffer, self._embeddings)
        storage.write_bytes(storage.join(uri, SAMPLE_NAME), buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def first(self, count: int) -> Float32[np.ndarray, "record dimension"]:
        """So many of the embeddings, or all where there are fewer."""
        return self._embeddings[:count]

    def similarities(self, vectors: Float32[np.ndarray, "vector dimension"]) -> Float32[np.ndarray, "vector record"]:
        """Cosines of unit vectors and all of the sample, ascending for each vector."""
        found: np.ndarray = np.sort(vectors @ self._embeddings.T, axis=1)
        return found

    def spreads(self, vectors: Float32[np.ndarray, "vector dimension"]) -> Float[np.ndarray, " vector"]:
        """Standard deviation of the archive's similarities to each vector."""
        found: np.ndarray = np.maximum((vectors @ self._embeddings.T).std(axis=1, dtype=np.float64), _FLAT)
        return found


def percentiles(
    similarity: Float[np.ndarray, " hit"], ascending: Float32[np.ndarray, " record"]
) -> Float[np.ndarray, " hit"]:
    """How many percent of the sample are less similar. ascending: a row of `Sample.similarities`."""
    found: np.ndarray = 100.0 * np.searchsorted(ascending, similarity, side="left") / max(1, len(ascending))
    return found
