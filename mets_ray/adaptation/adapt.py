"""From few labels to a head: embed, draw the labels, fit, and publish a new version of the bundle."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mets_ray import storage
from mets_ray.adaptation.examples import Examples, drawn_examples, labelled_examples
from mets_ray.adaptation.head import make_head
from mets_ray.adaptation.labels import Labels, read_labels
from mets_ray.adaptation.learn import fit_linear, fit_text
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError
from mets_ray.evaluation.checks import learning_folds
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.linear_probe import with_both_kinds
from mets_ray.model.adapted_bundle import publish_with_head
from mets_ray.model.bundle import check_signal
from mets_ray.model.heads import Head, HeadFacts, is_head_name
from mets_ray.model.predictor import Predictor, load_predictor
from mets_ray.pipelines.embed import Part, embed_parts
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.training.run_folder import new_run_uri


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
    CheckpointError if bundle and data set do not match, or `train.resume` is no run of this kind.
    """
    _check_resume(config)
    dataset = PreparedDataset.open(dataset_uri)
    predictor = load_predictor(bundle_uri, encoder_runtime=config.encoder_runtime)
    check_signal(dataset.card.signal, predictor.facts)
    labels = read_labels(config.adapt, dataset.card.source)
    name = _head_name(config, labels.task)
    folds = learning_folds(config, dataset, Selection(config.folds.test or ()), "adapt")
    embedded = embed_parts(config, dataset, {key: Part(of) for key, of in folds.items()}, bundle_uri).bundle
    train, notices = drawn_examples(config, labels, embedded["folds.train"])
    validation = labelled_examples(labels, embedded["folds.validation"])
    if not with_both_kinds(validation.truth).any():
        raise ConfigError(
            f"no class of `{labels.task}` has ECGs with and without it among the {len(validation.rows)} labelled ones "
            "of `folds.validation`, which the head is chosen on",
            hint="name more folds there, or folds.validation=hash:0.2",
        )
    run_uri = new_run_uri(config, "adapt")
    class_vectors = _class_vectors(config, labels, predictor, dataset)
    if class_vectors is None:
        fitted = fit_linear(train, validation)
    elif config.adapt.method == "text":
        fitted = fit_text(train, validation, class_vectors, predictor)
    else:
        from mets_ray.adaptation.finetune import Start, finetune

        start = Start(bundle_uri, predictor, class_vectors)
        fitted, run_uri = finetune(config, dataset, folds, labels, train, start)
    zero_shot = None if class_vectors is None else _auroc(validation, class_vectors)
    head = make_head(config, name, labels, (train, validation), fitted, zero_shot, (predictor, dataset))
    notices += _unlearnt(labels, train, head)
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


def _check_resume(config: Config) -> None:
    """Raise ConfigError where there is nothing to go on with."""
    if config.train.resume is not None and config.adapt.method != "finetune":
        raise ConfigError(
            f"`train.resume` is `{config.train.resume}`, and adapt.method={config.adapt.method} has nothing to resume",
            hint="start it again without train.resume: it takes seconds",
        )


def _head_name(config: Config, task: str) -> str:
    name = config.adapt.name or f"{task}-{config.adapt.method}"
    if not is_head_name(name):
        raise ConfigError(f"`adapt.name` is not set, and {name!r} is not the name of a head", hint="set adapt.name")
    return name


def _class_vectors(config: Config, labels: Labels, predictor: Predictor, dataset: PreparedDataset) -> np.ndarray | None:
    """The unit vectors of the classes' words, which the head begins with; None for a linear head."""
    if not labels.words:
        return None
    learn_prompts(config, predictor, [text for texts in labels.words.values() for text in texts], dataset)
    vectors = predictor.class_vectors(labels.words)
    assert vectors is not None, "the words were not learnt"
    found: np.ndarray = vectors.numpy()
    return found


def _auroc(of: Examples, class_vectors: np.ndarray) -> float:
    return macro_auroc(of.embeddings @ class_vectors.T, of.truth)[0]


def _unlearnt(labels: Labels, train: Examples, head: Head) -> tuple[str, ...]:
    """A notice of the classes that all labelled ECGs have, or none."""
    learnt = with_both_kinds(train.truth) if len(train.rows) else np.zeros(len(labels.label_set.classes), np.bool_)
    names = [name for name, known in zip(labels.label_set.classes, learnt, strict=True) if not known]
    if not names:
        return ()
    what = "they stay at zero-shot" if set(names) <= set(head.facts.classes) else "the head has no such class"
    return (f"no labelled ECGs with and without {', '.join(names)}: {what}",)


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
