"""From few labels to a head: embed, draw the labels, fit, and publish a new version of the bundle."""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from mets_ray import storage
from mets_ray.adaptation.labels import Labels, read_labels
from mets_ray.adaptation.learn import Examples, Fitted, fit_linear, fit_text
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError
from mets_ray.evaluation.checks import learning_folds
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.few_labels import draw_labels
from mets_ray.metrics.intervals import number_json
from mets_ray.metrics.linear_probe import with_both_kinds
from mets_ray.model.adapted_bundle import publish_with_head
from mets_ray.model.bundle import check_signal
from mets_ray.model.heads import Head, HeadFacts, is_head_name
from mets_ray.model.predictor import Predictor, load_predictor
from mets_ray.pipelines.embed import EmbeddedRecords, Part, embed_parts
from mets_ray.pipelines.texts import learn_prompts


@dataclass(frozen=True)
class Adapted:
    """The result: the new bundle, and its head. `notices`: what a user of the head should know."""

    bundle_uri: str
    head: HeadFacts
    notices: tuple[str, ...]


def adapt(config: Config, dataset_uri: str, bundle_uri: str) -> Adapted:
    """Learn a head for one task from `folds.train`, and publish the bundle with it as `<run_uri>/adapt-…/bundle`.

    The strength of its penalty, or its epoch, is chosen on `folds.validation`; no test record is looked at. Raises
    ConfigError for labels that nothing can be learnt from, DatasetError for patients in two of the folds,
    CheckpointError if bundle and data set do not match.
    """
    dataset = PreparedDataset.open(dataset_uri)
    predictor = load_predictor(bundle_uri, encoder_runtime=config.encoder_runtime)
    check_signal(dataset.card.signal, predictor.facts)
    labels = read_labels(config.adapt, dataset.card.source)
    name = _head_name(config, labels.task)
    folds = learning_folds(config, dataset, Selection(config.folds.test or ()), "adapt")
    embedded = embed_parts(config, dataset, {key: Part(of) for key, of in folds.items()}, bundle_uri).bundle
    train, notices = _train_examples(config, labels, embedded["folds.train"])
    validation = _examples(labels, embedded["folds.validation"])
    if not with_both_kinds(validation.truth).any():
        raise ConfigError(
            f"no class of `{labels.task}` has ECGs with and without it among the {len(validation.rows)} labelled ones "
            "of `folds.validation`, which the head is chosen on",
            hint="name more folds there, or folds.validation=hash:0.2",
        )
    class_vectors = _class_vectors(config, labels, predictor, dataset)
    if config.adapt.method == "linear":
        fitted = fit_linear(train, validation)
    else:
        assert class_vectors is not None
        fitted = fit_text(train, validation, class_vectors, predictor)
    head = _head(config, name, labels, (train, validation), fitted, predictor, dataset)
    left_out = [name for name in labels.label_set.classes if name not in head.facts.classes]
    if left_out:
        notices += (f"too few labels to learn {', '.join(left_out)}: the head has no such class",)
    run_uri = storage.join(
        storage.absolute(config.run_uri), f"adapt-{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
    )
    output_uri = storage.join(run_uri, "bundle")
    publish_with_head(bundle_uri, predictor.bundle, head, output_uri)
    found = Adapted(output_uri, head.facts, notices)
    _tell(found)
    return found


def figures(result: Adapted) -> dict[str, Any]:
    """The machine-readable result of a job."""
    facts = result.head
    return {
        "bundle_uri": result.bundle_uri,
        "head": facts.name,
        "task": facts.task,
        "method": facts.method,
        "classes": list(facts.classes),
        "labels": facts.labels,
        "records": facts.records,
        "patients": facts.patients,
        "inverse_penalty": facts.inverse_penalty,
        "validation_macro_auroc": facts.validation_macro_auroc,
        "zero_shot_macro_auroc": facts.zero_shot_macro_auroc,
        "notices": list(result.notices),
    }


def _head_name(config: Config, task: str) -> str:
    name = config.adapt.name or f"{task}-{config.adapt.method}"
    if not is_head_name(name):
        raise ConfigError(f"`adapt.name` is not set, and {name!r} is not the name of a head", hint="set adapt.name")
    return name


def _examples(labels: Labels, records: EmbeddedRecords) -> Examples:
    truth = labels.truth(records)
    rows = np.flatnonzero(truth.any(axis=1))
    return Examples(records, rows, truth[rows])


def _train_examples(config: Config, labels: Labels, records: EmbeddedRecords) -> tuple[Examples, tuple[str, ...]]:
    """The drawn records, and notices. Raises ConfigError if nothing can be learnt from them."""
    truth, asked, task = labels.truth(records), config.adapt.labels_per_class, labels.task
    names = tuple(labels.label_set.classes)
    there = dict(zip(names, truth.sum(axis=0).tolist(), strict=True))
    if not truth.any():
        raise ConfigError(
            f"none of the {len(truth)} ECGs in `folds.train` has a class of `{task}` ({', '.join(names[:20])})",
            hint="choose other folds or another adapt.task, or give labels as adapt.labels_uri",
        )
    if asked == 0 and config.adapt.method != "text":
        raise ConfigError(
            f"`adapt.labels_per_class` is 0, from which adapt.method={config.adapt.method} learns nothing",
            hint="set adapt.method=text, which is zero-shot without labels, or more labels",
        )
    rows = draw_labels(truth, records.record_ids, asked, config.seed)
    notices = []
    if short := {name: count for name, count in there.items() if asked is not None and count < asked}:
        counts = ", ".join(f"{name} {count}" for name, count in short.items())
        notices.append(
            f"`adapt.labels_per_class` is {asked}, and some classes have fewer, which are all taken: {counts}"
        )
    if asked != 0 and not with_both_kinds(truth[rows]).any():
        (only,) = np.flatnonzero(truth[rows].all(axis=0))[:1]
        raise ConfigError(
            f"all {len(rows)} labelled ECGs of `{task}` in `folds.train` have the same class, {names[only]!r}: there "
            "is nothing to tell it from",
            hint="name folds with ECGs of other classes as well",
        )
    return Examples(records, rows, truth[rows]), tuple(notices)


def _class_vectors(config: Config, labels: Labels, predictor: Predictor, dataset: PreparedDataset) -> np.ndarray | None:
    """The unit vectors of the classes' words, which the head begins with; None for a linear head."""
    if not labels.words:
        return None
    learn_prompts(config, predictor, [text for texts in labels.words.values() for text in texts], dataset)
    vectors = predictor.class_vectors(labels.words)
    assert vectors is not None, "the words were not learnt"
    found: np.ndarray = vectors.numpy()
    return found


def _head(
    config: Config,
    name: str,
    labels: Labels,
    learnt: tuple[Examples, Examples],
    fitted: Fitted,
    predictor: Predictor,
    dataset: PreparedDataset,
) -> Head:
    train, validation = learnt
    card, bundle, columns = dataset.card, predictor.bundle, list(fitted.columns)
    names = [list(labels.label_set.classes)[column] for column in columns]
    zero_shot = None
    if fitted.class_vectors is not None:
        zero_shot = macro_auroc(validation.embeddings @ fitted.class_vectors.T, validation.truth)[0]
    facts = HeadFacts(
        name=name,
        task=labels.task,
        classes=tuple(names),
        method=config.adapt.method,
        prompt_set=None if labels.prompt_set is None else f"{labels.prompt_set.name}@{labels.prompt_set.version}",
        labels_per_class=config.adapt.labels_per_class,
        labels=dict(zip(names, train.truth[:, columns].sum(axis=0).tolist(), strict=True)),
        records=len(train.rows),
        patients=len(np.unique(train.records.patients[train.rows])),
        seed=config.seed,
        inverse_penalty=number_json(fitted.inverse_penalty),
        logit_scale=predictor.logit_scale,
        validation_macro_auroc=None,
        zero_shot_macro_auroc=None if zero_shot is None else number_json(zero_shot),
        dataset_source=card.source,
        dataset_sha256=card.content_sha256,
        dataset_source_sha256=card.source_sha256,
        synthetic=card.synthetic,
        train_folds=config.folds.train,
        validation=config.folds.validation,
        parent_run=bundle.facts.run,
        parent_digest=bundle.digest,
        model_sha256=bundle.facts.files["model.safetensors"],
    )
    head = Head(facts, fitted.bias, fitted.weight, fitted.class_vectors)
    # Of the arrays that are kept, so that the figure is that of what is served.
    scored = macro_auroc(head.logits(validation.features, validation.embeddings), validation.truth[:, columns])[0]
    return replace(head, facts=facts.model_copy(update={"validation_macro_auroc": number_json(scored)}))


def _tell(result: Adapted) -> None:
    facts = result.head
    for notice in result.notices:
        say(notice)
    say(
        f"head `{facts.name}`: {facts.method}, {facts.records:,} labelled ECGs of {facts.patients:,} patients "
        f"({', '.join(f'{name} {count}' for name, count in facts.labels.items())})"
    )
    known = [("head", facts.validation_macro_auroc), ("zero-shot", facts.zero_shot_macro_auroc)]
    shown = ", ".join(f"{what} {value:.3f}" for what, value in known if value is not None)
    say(f"macro AUROC on the validation folds, which chose the head: {shown}")
    say(f"bundle: {result.bundle_uri}")
