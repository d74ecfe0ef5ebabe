"""Checks made before the LM runs and before a run folder is created: settings, data set, resources."""

from contextlib import suppress

from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.shares import TrainShares, check_lm_fits, train_shares
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import listed, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError, DatasetError
from mets_ray.training.job import epoch_plan
from mets_ray.training.tracking import check_trackers


def check_settings(config: Config) -> None:
    """Raise ConfigError for settings that are invalid for any data set."""
    check_trackers(config)
    if config.text.unit == "statement" and config.text.mode == "streaming":
        raise ConfigError(
            "`text.unit` is statement and `text.mode` is streaming, which embeds whole reports",
            hint="set text.mode=cached: statements repeat, so even a million reports have few distinct ones",
        )


def check_dataset(config: Config, dataset: PreparedDataset) -> None:
    """Raise DatasetError for a data set without reports or a patient in two splits, ConfigError for too few records."""
    card = dataset.card
    if not card.has_reports:
        raise DatasetError(
            f"`{dataset.uri}` has no reports: `{card.source}` is for evaluation",
            hint="train on a source with reports",
        )
    named = {*config.folds.train, *(config.folds.test or ())}
    if not isinstance(config.folds.validation, str):
        named |= set(config.folds.validation)
    if absent := sorted(named - set(card.folds)):
        known = listed(tuple(card.folds))
        say(f"folds {listed(tuple(absent))} of the settings are not in this data set: it has {known}")
    train, validation, test = selections(config.folds.train, config.folds.validation, config.folds.test)
    dataset.check_patients(train, test, names=("train", "test"))
    dataset.check_patients(train, validation, names=("train", "validation"))
    dataset.check_patients(validation, test, names=("validation", "test"))
    groups = dataset.row_groups(train)
    if not groups:
        raise ConfigError(
            f"`folds.train` {list(config.folds.train)} selects no records of `{card.source}`, which has folds "
            f"{list(card.folds)}",
            hint="choose other folds",
        )
    epoch_plan(config, groups, epoch=0)


def group_shares(config: Config) -> TrainShares:
    """Shares for the largest worker group that the cluster can ever hold.

    Raises ConfigError if not even the smallest group fits."""
    nodes, train, lm = reachable_nodes(), config.train, config.text
    actors = lm.max_actors if lm.mode == "streaming" else 0

    def of(workers: int) -> TrainShares:
        shares = train_shares(
            nodes,
            num_workers=workers,
            device=train.device,
            resources=train.resources,
            lm_cpus_per_worker=actors * lm.num_cpus_per_actor,
            lm_gpus_per_worker=actors * lm.num_gpus_per_actor,
        )
        check_lm_fits(
            nodes,
            shares,
            num_workers=workers,
            worker_resources=train.resources,
            actors_per_worker=actors,
            actor={"CPU": lm.num_cpus_per_actor, "GPU": lm.num_gpus_per_actor, **lm.resources},
        )
        return shares

    for workers in range(train.most_workers, train.least_workers, -1):
        with suppress(ConfigError):
            return of(workers)
    return of(train.least_workers)
