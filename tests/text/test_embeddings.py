"""The embedding store: parts come back as one table, finished parts are kept, what is absent is named."""

import numpy as np
import pytest

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.pipelines.lm_actors import TextEmbedder
from mets_ray.text.embeddings import EmbeddingTable, part_folder, read_store, write_part
from mets_ray.text.reports import text_id

TEXTS = [f"report {n}" for n in range(7)]


def batch_of(texts, *, prompts=()):
    vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), 5)).astype(np.float16)
    return {
        "text": np.asarray(texts, dtype=object),
        "text_id": np.asarray([text_id(text) for text in texts]),
        "embedding": vectors,
        "embedded": np.ones(len(texts), dtype=np.int8),
        "is_prompt": np.asarray([text in prompts for text in texts]),
    }


def test_parts_come_back_as_one_table(tmp_path):
    folder = part_folder(str(tmp_path), "a" * 64)
    first, second = batch_of(TEXTS[:4], prompts=TEXTS[:1]), batch_of(TEXTS[4:])
    counts = [write_part(batch, folder_uri=folder) for batch in (first, second)]
    assert counts == [(3, 1), (3, 0)]
    table = read_store(str(tmp_path), "a" * 64)
    expected = np.concatenate([first["embedding"], second["embedding"]])
    np.testing.assert_array_equal(table.lookup(np.asarray([text_id(text) for text in TEXTS])), expected)
    assert table.missing([*TEXTS, "new", "new"]) == ["new"]
    write_part(first, folder_uri=folder)
    assert len(storage.list_files(folder)) == 2  # the same texts are the same part
    assert len(read_store(str(tmp_path), "b" * 64).ids) == 0  # another LM


def test_a_text_that_was_never_embedded_is_an_error():
    table = EmbeddingTable.build(np.asarray([5, 1, 5]), np.ones((3, 2), dtype=np.float16))
    assert table.ids.tolist() == [1, 5]
    for identity in (0, 3, 9):
        with pytest.raises(DatasetError, match="has no text embedding"):
            table.lookup(np.asarray([1, identity]))
    empty = EmbeddingTable(np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.float16))
    with pytest.raises(DatasetError):
        empty.lookup(np.asarray([1]))


def test_the_embedder_counts_each_distinct_text_of_a_batch_once():
    embedder = TextEmbedder(model="packaged-minilm", pooling="mean", max_length=32, batch_size=8, device="cpu")
    texts = ["sinus rhythm", "atrial fibrillation", "sinus rhythm"]
    batch = embedder({"text": np.asarray(texts, dtype=object)})
    assert batch["embedded"].tolist() == [1, 1, 0]
    assert batch["embedding"].shape == (3, 384)
    np.testing.assert_array_equal(batch["embedding"][0], batch["embedding"][2])
