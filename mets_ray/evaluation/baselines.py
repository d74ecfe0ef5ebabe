"""Baselines that keep a zero-shot score honest: no training, no sentence, chance, and what labels would give.

Protocol of the supervised ones: Strodthoff et al. 2021 (doi:10.1109/JBHI.2020.3022989) for the labels and folds, MERL
(Liu et al., ICML 2024) for 1, 10 and 100% of them; the test folds are scored once.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
import torch

from mets_ray.cluster.nodes import reachable_nodes
from mets_ray.cluster.ray_data import own_errors
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.plan import RowGroup
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.errors import ConfigError
from mets_ray.evaluation.inputs import Scene
from mets_ray.evaluation.supervised import train_supervised
from mets_ray.metrics.auroc import chance_auroc
from mets_ray.metrics.linear_probe import fit_linear_probe, label_subset
from mets_ray.model.bundle import untrained_model
from mets_ray.model.zero_shot import task_scores
from mets_ray.pipelines.embed import EmbeddedRecords, embed_records
from mets_ray.pipelines.texts import prompt_table
from mets_ray.results.values import BaselineScore
from mets_ray.tasks.choose import check_prompts
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_files import read_prompt_set


def score_baselines(scene: Scene) -> Iterator[BaselineScore]:
    """All of `evaluate.baselines`, in that order.

    Raises ConfigError where a baseline needs train or validation folds and has none, DatasetError where their patients
    are also tested.
    """
    kinds = {
        "random_encoder": _random_encoder,
        "class_names": _class_names,
        "permuted_labels": _permuted_labels,
        "linear_probe": _linear_probe,
        "supervised": _supervised,
    }
    for name in scene.config.evaluate.baselines:
        say(f"baseline: {name}")
        yield from kinds[name](scene)


def _random_encoder(scene: Scene) -> Iterator[BaselineScore]:
    config, seed = scene.config, scene.config.seed
    records = embed_records(config, scene.dataset, scene.test, scene.bundle_uri, key="folds.test", untrained_seed=seed)
    model = untrained_model(scene.bundle, seed)
    for task, of in scene.scores.items():
        similarity, _, _ = task_scores(
            model, scene.prompt_set, scene.tasks[task], scene.prompts, records.embeddings, records.labels
        )
        yield BaselineScore("randomly initialised", task, scene.macro(similarity, of), f"nothing, seed {seed}")


def _class_names(scene: Scene) -> Iterator[BaselineScore]:
    prompt_set = read_prompt_set("class_names")
    check_prompts(prompt_set, dict(scene.tasks))
    table = prompt_table(scene.config, scene.bundle, prompt_set, scene.tasks, scene.dataset)
    for task, of in scene.scores.items():
        similarity, _, _ = task_scores(
            scene.bundle.model, prompt_set, scene.tasks[task], table, scene.records.embeddings, scene.records.labels
        )
        yield BaselineScore("class names as prompts", task, scene.macro(similarity, of), "reports, no label")


def _permuted_labels(scene: Scene) -> Iterator[BaselineScore]:
    settings = scene.config.evaluate
    for task, of in scene.scores.items():
        chance = chance_auroc(of.similarity, of.truth, samples=settings.bootstrap_samples, seed=scene.config.seed)
        note = f"the bundle's scores against labels permuted {settings.bootstrap_samples} times"
        yield BaselineScore("chance", task, chance, note)


def _linear_probe(scene: Scene) -> Iterator[BaselineScore]:
    """On the bundle's features, and on those of an encoder that was never trained.

    The second row says what pretraining adds: on many ECG benchmarks a probe of random features comes close to
    pretrained ones (Berger et al. 2026, arXiv:2602.17531).
    """
    config, folds = scene.config, _learning_folds(scene, "linear_probe")
    for baseline, seed in (("linear probe", None), ("linear probe, random encoder", config.seed)):

        def embed(key: str, selection: Selection, seed: int | None = seed) -> EmbeddedRecords:
            return embed_records(config, scene.dataset, selection, scene.bundle_uri, key=key, untrained_seed=seed)

        train, validation = (embed(key, selection) for key, selection in folds.items())
        test = scene.records if seed is None else embed("folds.test", scene.test)
        for task, of in scene.scores.items():
            label_set = scene.tasks[task]
            truth, _ = label_matrix(label_set, train.labels)
            validation_truth, kept = label_matrix(label_set, validation.labels)
            _, tested = label_matrix(label_set, test.labels)
            for share in config.evaluate.label_shares:
                rows = label_subset(truth, train.patients, share, config.seed)
                probe = fit_linear_probe(
                    train.features[rows], truth[rows], validation.features[kept], validation_truth[kept]
                )
                macro = scene.macro(probe.scores(test.features[tested]), of)
                note = _learnt_from(label_set, rows, share, train.patients, probe.untrained_classes)
                yield BaselineScore(baseline, task, macro, f"{note}, C = {probe.inverse_penalty:g}", share)


def _supervised(scene: Scene) -> Iterator[BaselineScore]:
    config = scene.config
    if len(scene.records.record_ids) != scene.records.rows:
        raise ConfigError(
            "the baseline `supervised` sees one window of a record, and this data set has several",
            hint="leave it out of evaluate.baselines, or prepare with prepare.source.stretch=start",
        )
    folds = _learning_folds(scene, "supervised")
    groups = {name: (scene.dataset.row_groups(selection), selection) for name, selection in folds.items()}
    groups["test"] = (scene.dataset.row_groups(scene.test), scene.test)
    gpu = config.evaluate.num_gpus_per_actor > 0
    # A process for itself with a whole node's CPUs: nothing else runs now.
    cpus = 1 if gpu else max(node.get("CPU", 0.0) for node in reachable_nodes())
    learn = ray.remote(num_cpus=cpus, num_gpus=1 if gpu else 0, max_retries=1)(_learn)
    for task, of in scene.scores.items():
        for share in config.evaluate.label_shares:
            with own_errors():
                ids, scores, note = ray.get(learn.remote(groups, scene.dataset, scene.tasks[task], share, config))
            row_of = {name: row for row, name in enumerate(ids)}
            macro = scene.macro(scores[[row_of[name] for name in of.record_ids]], of)
            say(f"supervised, {task}, {share:.0%} of labels: {macro.value:.3f} ({note})")
            yield BaselineScore("supervised ResNet1d-18", task, macro, note, share)


def _learn(
    groups: dict[str, tuple[list[RowGroup], Selection]],
    dataset: PreparedDataset,
    label_set: LabelSet,
    share: float,
    config: Config,
) -> tuple[list[str], np.ndarray, str]:
    """(test record ids, scores [record, class], what it learnt from): a Ray task, so signals stay out of the driver."""
    torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)) or 1)

    def read(name: str) -> tuple[pa.Table, np.ndarray]:
        of_part, selection = groups[name]
        table = pa.concat_tables(dataset.read(group, selection) for group in of_part)
        truth, kept = label_matrix(label_set, table["labels"].to_pylist())
        return table.filter(pa.array(kept)), truth[kept]

    train, truth = read("folds.train")
    patients = np.asarray(train["patient_id"].to_pylist())
    rows = label_subset(truth, patients, share, config.seed)
    validation, validation_truth = read("folds.validation")
    result = train_supervised(
        signals(train.take(pa.array(rows))),
        truth[rows],
        signals(validation),
        validation_truth,
        width=config.encoder.width,
        norm="group" if config.encoder.norm == "group" else "batch",  # one process has nobody to synchronise with
        epochs=config.evaluate.supervised_epochs,
        augment=config.augment,
        seed=config.seed,
        device="cuda" if config.evaluate.num_gpus_per_actor else "cpu",
    )
    test, _ = read("test")
    note = _learnt_from(label_set, rows, share, patients, result.untrained_classes)
    return test["record_id"].to_pylist(), result.scores(signals(test)), f"{note}, best epoch {result.best.epoch}"


def _learning_folds(scene: Scene, baseline: str) -> dict[str, Selection]:
    folds = scene.config.folds
    train, validation, _ = selections(folds.train, folds.validation, folds.test)
    found = {"folds.train": train, "folds.validation": validation}
    for key, selection in found.items():
        if not scene.dataset.patients_of(selection):
            raise ConfigError(
                f"the baseline `{baseline}` needs records in `{key}`, which is {list(selection.folds)}",
                hint="name folds of this data set; folds.validation=hash:0.1 draws some of the train folds' patients",
            )
        scene.dataset.check_patients(selection, scene.test, names=(key, "test"))
    return found


def _learnt_from(
    label_set: LabelSet, rows: np.ndarray, share: float, patients: np.ndarray, untrained: tuple[int, ...]
) -> str:
    note = f"{share:.0%} of labels: {len(rows)} ECGs of {len(set(patients[rows].tolist()))} patients"
    if untrained:
        classes = tuple(label_set.classes)
        note += f"; none of {', '.join(classes[column] for column in untrained)}, which count as 0.5"
    return note
