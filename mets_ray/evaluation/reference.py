"""Writes the reference of a bundle's inputs beside it, when the data set that is evaluated is the one that trained it.

What can be measured in a signal is of the ECGs that trained the bundle and of those held out for validation. Embeddings
are of the held-out ones alone where there are enough: a model places the ECGs that it was trained on differently, and
new ones would look as if they had drifted.
"""

import numpy as np

from mets_ray import storage
from mets_ray.console import say
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.signal_features import FIXED_EDGES, feature_names
from mets_ray.errors import MetsError
from mets_ray.evaluation.calibrate import require_writable
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.input_drift import LEAST_PATIENTS
from mets_ray.metrics.input_thresholds import EmbeddedEcgs, build_reference
from mets_ray.model.bundle import Bundle, signing_key
from mets_ray.model.input_references import ReferenceFile, reference_uri
from mets_ray.pipelines.embed import EmbeddedRecords, Part

_MOST_TRAINED = 4000  # ECGs, by patients: more make no threshold better that is worth the time
_TRAINED, _HELD_OUT = "reference.trained", "reference.held_out"


def reference_parts(dataset: PreparedDataset, bundle: Bundle) -> dict[str, Part]:
    """What to embed for the reference; nothing where there is one, or the bundle was trained on another data set."""
    facts, card = bundle.facts, dataset.card
    if bundle.reference is not None or card.content_sha256 != facts.dataset_sha256 or card.window_stride_s is not None:
        return {}
    train, held_out, _ = selections(facts.train_folds, facts.validation, ())
    records = sum(card.folds.get(fold, 0) for fold in train.folds)
    share = min(1.0, _MOST_TRAINED / max(records, 1))
    train = Selection(train.folds, low=train.low, high=train.low + share * (1.0 - train.low))
    parts = {_TRAINED: Part(train), _HELD_OUT: Part(held_out)}
    return {key: part for key, part in parts.items() if dataset.patients_of(part.selection)}


def write_reference(inputs: EvaluationInputs, result_uri: str) -> tuple[str, tuple[str, ...]]:
    """Write the reference that `reference_parts` were embedded for. Returns (its URI, notices); ("", ()) for none.

    It goes to the bundle's folder, or to the result's where that cannot be written to.
    """
    trained, held_out = (inputs.embedded.bundle.get(key) for key in (_TRAINED, _HELD_OUT))
    if trained is None:
        return "", ()
    try:
        file = _file(inputs, trained, held_out)
    except MetsError as error:
        return "", (f"No reference of the bundle's inputs: {error.fact}.",)
    notices: tuple[str, ...] = ()
    try:
        require_writable(inputs.bundle_uri)
        uri = _write(file, reference_uri(inputs.bundle_uri))
    except MetsError as error:
        uri = _write(file, reference_uri(result_uri))
        notices = (
            f"The reference of inputs is {uri} and not beside the bundle: {error.fact}. Name it as reference_uri.",
        )
    say(f"reference: {uri}")
    return uri, notices


def _file(inputs: EvaluationInputs, trained: EmbeddedRecords, held_out: EmbeddedRecords | None) -> ReferenceFile:
    parts = [part for part in (trained, held_out) if part is not None]
    if any(part.rows != len(part.record_ids) for part in parts):
        raise MetsError("its records are windows of recordings")
    is_enough = held_out is not None and len(np.unique(held_out.patients)) >= LEAST_PATIENTS
    embedded = held_out if is_enough and held_out is not None else trained
    card, bundle = inputs.dataset.card, inputs.predictor.bundle
    reference = build_reference(
        feature_names(card.leads),
        np.concatenate([part.signal_features for part in parts]),
        np.concatenate([part.patients for part in parts]),
        EmbeddedEcgs(embedded.embeddings, embedded.patients, is_enough),
        fixed_edges=FIXED_EDGES,
        seed=inputs.config.seed,
    )
    return ReferenceFile(bundle.facts.run, bundle.digest, card.source, card.content_sha256, card.synthetic, reference)


def _write(file: ReferenceFile, uri: str) -> str:
    storage.write_bytes(uri, file.to_bytes(signing_key()))
    return uri
