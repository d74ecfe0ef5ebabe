"""The smallest configuration that goes the whole way."""

from mets_ray.config.load import load_config

SMALL = [
    "prepare.source.records=300",
    "encoder.width=4",
    "encoder.norm=group",
    "train.precision=float64",
    "train.batch_size=48",
    "train.epochs=2",
    "text.max_actors=1",
    "evaluate.max_actors=1",
    "evaluate.bootstrap_samples=50",
]


def config_of(folder, *words, dataset_uri=None):
    named = [] if dataset_uri is None else [f"dataset_uri={dataset_uri}"]
    small = SMALL[1:] if any(word.startswith("prepare.source=") for word in words) else SMALL
    return load_config(None, [*small, f"run_uri={folder}", *named, *words])


def losses(result):
    return [figures["loss"] for figures in result.history]
