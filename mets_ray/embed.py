"""Embedding a whole selection of a prepared data set with a bundle, on a pool of encoder actors."""

from ray.data import ActorPoolStrategy

from mets_ray.cluster import own_errors, plain, reachable_nodes
from mets_ray.config import Config
from mets_ray.console import progress_bar
from mets_ray.data import record_dataset
from mets_ray.embedded import EmbeddedRecords, embedded_records
from mets_ray.errors import DatasetError
from mets_ray.folds import Selection
from mets_ray.resources import check_actor_fits
from mets_ray.shard_reader import DatasetIndex, read_card
from mets_ray.tasks import EcgEmbedder


def embed_records(
    config: Config,
    dataset_uri: str,
    index: DatasetIndex,
    selection: Selection,
    bundle_uri: str,
    *,
    key: str,
    untrained_seed: int | None = None,
) -> EmbeddedRecords:
    """Embeddings and features of all selected records; their signals never come to the driver.

    key: the setting that chose the folds, for the error. untrained_seed: random weights in place of the bundle's.
    Raises DatasetError where nothing is selected, ConfigError where no actor fits.
    """
    groups = index.row_groups(selection)
    if not groups:
        raise DatasetError(
            f"`{key}` {list(selection.folds)} holds no record",
            hint="name folds that the card of the data set has",
        )
    actors = config.evaluate
    gpus = actors.num_gpus_per_actor
    check_actor_fits(reachable_nodes(), key="evaluate", cpus=1.0, gpus=gpus, resources={})
    dataset = record_dataset(groups, dataset_uri=dataset_uri, selection=selection).map_batches(
        EcgEmbedder,
        fn_constructor_args=(bundle_uri, "cuda" if gpus else "cpu", untrained_seed, read_card(dataset_uri).focus),
        batch_size=actors.batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=actors.max_actors),
        num_cpus=0 if gpus else 1,  # on a CPU the reading is fused into the actor; beside a GPU it needs the CPU
        num_gpus=gpus or None,
    )
    plain(dataset)
    rows = []
    with (
        own_errors(),
        progress_bar(total=sum(group.rows for group in groups), unit="ECG", description="embedding") as bar,
    ):
        for row in dataset.iter_rows():
            rows.append(row)
            bar.update()
    return embedded_records(rows)
