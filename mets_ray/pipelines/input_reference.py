"""The reference of a bundle's inputs, from the data set that trained it; `pretrain` and `evaluate` write it.

What can be measured in a signal is of the ECGs that trained the bundle and of those held out for validation. Embeddings
are of the held-out ones alone where there are enough: a model places the ECGs that it was trained on differently, and
new ones would look as if they had drifted.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mets_ray import storage
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.signal_features import FIXED_EDGES, feature_names
from mets_ray.errors import MetsError
from mets_ray.metrics.input_drift import LEAST_PATIENTS
from mets_ray.metrics.input_thresholds import EmbeddedEcgs, build_reference
from mets_ray.model.bundle import Bundle, load_bundle, signing_key
from mets_ray.model.input_references import ReferenceFile, reference_uri
from mets_ray.pipelines.embed import EcgEmbedder, EmbeddedRecords, Part, embedded_records

_MOST_ECGS = 4000  # of each kind, by patients: more make no threshold better that is worth the time
_TRAINED, _HELD_OUT = "reference.trained", "reference.held_out"


def reference_parts(dataset: PreparedDataset, bundle: Bundle) -> dict[str, Part]:
    """What to embed for the reference; nothing where there is one, or the bundle was trained on another data set."""
    facts, card = bundle.facts, dataset.card
    if bundle.reference is not None or card.content_sha256 != facts.dataset_sha256 or card.window_stride_s is not None:
        return {}
    train, held_out, _ = selections(facts.train_folds, facts.validation, ())
    parts = {_TRAINED: Part(_some(dataset, train)), _HELD_OUT: Part(_some(dataset, held_out))}
    return {key: part for key, part in parts.items() if dataset.patients_of(part.selection)}


def make_reference(
    dataset: PreparedDataset, bundle: Bundle, embedded: Mapping[str, EmbeddedRecords], seed: int
) -> ReferenceFile | None:
    """From the records of `reference_parts`; None where there are none.

    Raises MetsError where the records are windows, or their patients too few.
    """
    trained, held_out = (embedded.get(key) for key in (_TRAINED, _HELD_OUT))
    if trained is None:
        return None
    parts = [part for part in (trained, held_out) if part is not None]
    if any(part.rows != len(part.record_ids) for part in parts):
        raise MetsError("its records are windows of recordings")
    is_enough = held_out is not None and len(np.unique(held_out.patients)) >= LEAST_PATIENTS
    of_space = held_out if is_enough and held_out is not None else trained
    card = dataset.card
    reference = build_reference(
        feature_names(card.leads),
        np.concatenate([part.signal_features for part in parts]),
        np.concatenate([part.patients for part in parts]),
        EmbeddedEcgs(of_space.embeddings, of_space.patients, is_enough),
        fixed_edges=FIXED_EDGES,
        seed=seed,
    )
    return ReferenceFile(bundle.facts.run, bundle.digest, card.source, card.content_sha256, card.synthetic, reference)


def write_reference_of(config: Config, dataset: PreparedDataset, bundle_uri: str) -> tuple[str, str]:
    """Write the reference of a bundle that was just trained on `dataset`. Returns (its URI, why there is none).

    The ECGs are embedded here, in the driver: some thousand at most, which take less time than actors to start.
    """
    bundle = load_bundle(bundle_uri)
    parts = reference_parts(dataset, bundle)
    if not parts:
        return "", "its records are windows of recordings"
    say("measuring the ECGs that the bundle was made with, for its reference of inputs")
    embedder = EcgEmbedder(bundle_uri, "cpu", dataset.card.focus, encoder_runtime=config.encoder_runtime)
    try:
        embedded = {key: _embedded(dataset, part.selection, embedder, config) for key, part in parts.items()}
        file = make_reference(dataset, bundle, embedded, config.seed)
        return ("", "no record of its train folds is there") if file is None else (write_file(file, bundle_uri), "")
    except MetsError as error:
        return "", error.fact


def write_file(file: ReferenceFile, folder_uri: str) -> str:
    """Write it into the folder of a bundle or of a result; signed if there is a key. Returns its URI."""
    uri = reference_uri(folder_uri)
    storage.write_bytes(uri, file.to_bytes(signing_key()))
    return uri


def _some(dataset: PreparedDataset, selection: Selection) -> Selection:
    """About `_MOST_ECGS` of the selected records at most, of some of the patients."""
    folds = dataset.card.folds
    records = sum(folds.get(fold, 0) for fold in selection.folds) * (selection.high - selection.low)
    share = min(1.0, _MOST_ECGS / max(records, 1.0))
    return Selection(selection.folds, low=selection.low, high=selection.low + share * (selection.high - selection.low))


def _embedded(dataset: PreparedDataset, selection: Selection, embedder: EcgEmbedder, config: Config) -> EmbeddedRecords:
    size = config.evaluate.batch_size
    groups = (dataset.read(group, selection) for group in dataset.row_groups(selection))
    tables = [embedder(group.slice(start, size)) for group in groups for start in range(0, group.num_rows, size)]
    return embedded_records(pa.concat_tables(tables).to_pylist())
