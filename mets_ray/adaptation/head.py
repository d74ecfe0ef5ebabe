"""A head as a value: the arrays that were fitted, and the facts of what they learnt from."""

from dataclasses import replace

import numpy as np

from mets_ray.adaptation.examples import Examples
from mets_ray.adaptation.labels import Labels
from mets_ray.adaptation.learn import Fitted
from mets_ray.config.settings import Config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.intervals import number_json
from mets_ray.model.heads import Head, HeadFacts
from mets_ray.model.predictor import Predictor


def make_head(
    config: Config,
    name: str,
    labels: Labels,
    learnt: tuple[Examples, Examples],
    fitted: Fitted,
    zero_shot: float | None,
    of: tuple[Predictor, PreparedDataset],
) -> Head:
    """The head called `name`, with all that is known of it.

    learnt: train and validation records. zero_shot: macro AUROC of the words on the latter. of: the bundle that it
    belongs to, and the data set that its labels are of.
    """
    (train, validation), (predictor, dataset) = learnt, of
    card, bundle, columns = dataset.card, predictor.bundle, list(fitted.columns)
    names = [list(labels.label_set.classes)[column] for column in columns]
    facts = HeadFacts(
        name=name,
        task=labels.task,
        classes=tuple(names),
        method=config.adapt.method,
        input=fitted.input,
        prompt_set=None if labels.prompt_set is None else f"{labels.prompt_set.name}@{labels.prompt_set.version}",
        labels_per_class=config.adapt.labels_per_class,
        labels=dict(zip(names, train.truth[:, columns].sum(axis=0).tolist(), strict=True)),
        records=len(train.rows),
        patients=len(np.unique(train.records.patients[train.rows])),
        seed=config.seed,
        inverse_penalty=fitted.inverse_penalty,
        validation_macro_auroc=None,
        zero_shot_macro_auroc=None if zero_shot is None else number_json(zero_shot),
        dataset_source=card.source,
        dataset_sha256=card.content_sha256,
        dataset_source_sha256=card.source_sha256,
        patient_folds=card.patient_folds,
        synthetic=card.synthetic,
        train_folds=config.folds.train,
        validation=config.folds.validation,
        parent_run=bundle.facts.run,
        parent_digest=bundle.digest,
        model_sha256=bundle.facts.files["model.safetensors"],
    )
    head = Head(facts, fitted.weight, fitted.bias, fitted.own_model)
    scored = fitted.validation_macro_auroc
    if scored is None:  # by the arrays that are kept, so that the figure is that of what is served
        scored = macro_auroc(head.logits(validation.features, validation.embeddings), validation.truth[:, columns])[0]
    return replace(head, facts=facts.model_copy(update={"validation_macro_auroc": number_json(scored)}))
