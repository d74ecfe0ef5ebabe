"""A small archive of real embeddings: a prepared data set, scored by a bundle, and its index, without a cluster."""

from mets_ray.archive.facts import IndexedDataset
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.model.predictor import load_predictor
from tests.support.archives import rows_of, write_archive
from tests.support.datasets import synthetic_rows, write_dataset

SHARD = "shards/part-00000-abc.parquet"


def scored_archive(folder, bundle, *, records):
    """(URI of the index, URI of the data set) of synthetic ECGs."""
    dataset = PreparedDataset.open(write_dataset(folder / "prepared", synthetic_rows(records)))
    (group,) = dataset.row_groups(dataset.all_folds)
    rows = dataset.read(group, dataset.all_folds)
    predictor = load_predictor(str(bundle))
    columns = ("record_id", "patient_id", "age", "sex", "report")
    table = rows_of(
        predictor.embed_windows(signals(rows)),
        shard=SHARD,
        reports=True,
        **{name: rows[name].to_pylist() for name in columns},
    )
    of = IndexedDataset(uri=dataset.uri, source="synthetic", content_sha256=dataset.card.content_sha256, synthetic=True)
    facts = {"bundle_uri": str(bundle), "digest": predictor.bundle.digest, "reports": True}
    write_archive(folder / "index", table, dataset=of, **facts)
    return str(folder / "index"), dataset.uri
