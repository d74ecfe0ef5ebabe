"""A reference of inputs beside a bundle, of made-up ECGs."""

from pathlib import Path

import numpy as np

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.signal_features import FIXED_EDGES, feature_names, signal_features
from mets_ray.metrics.input_thresholds import EmbeddedEcgs, build_reference
from mets_ray.model.bundle import load_bundle
from mets_ray.model.input_references import ReferenceFile, reference_uri
from mets_ray.model.predictor import Predictor
from tests.support.serving import synthetic_ecg

NAMES = feature_names(LEADS)


def synthetic_signals(indices):
    """int16 [ecg, lead, sample] at 100 Hz, as `prepare` stores them; each ECG of a patient of its own."""
    signal = SignalConfig(100, 10.0, highpass_hz=0.5)
    return np.stack([preprocess(synthetic_ecg(index), signal) for index in indices])


def made_up_reference(bundle_uri, signals_uv):
    """The file for these ECGs."""
    bundle = load_bundle(str(bundle_uri))
    embeddings = Predictor(bundle, encoder_runtime="torch").embed_windows(signals_uv)
    patients = np.arange(len(signals_uv))
    reference = build_reference(
        NAMES,
        signal_features(signals_uv, LEADS, 100),
        patients,
        EmbeddedEcgs(embeddings, patients, held_out=True),
        fixed_edges=FIXED_EDGES,
        seed=0,
    )
    return ReferenceFile(bundle.facts.run, bundle.digest, "synthetic", "d", synthetic=True, reference=reference)


def write_reference(bundle_uri, file, key=""):
    """Where it lies now: in the bundle's folder."""
    path = Path(reference_uri(str(bundle_uri)))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file.to_bytes(key))
    return path
