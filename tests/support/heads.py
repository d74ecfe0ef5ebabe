"""Heads with made-up weights, and bundles that have them."""

import numpy as np
import torch

from mets_ray.model.adapted_bundle import publish_with_head
from mets_ray.model.bundle import load_bundle
from mets_ray.model.heads import Head, HeadFacts

CLASSES = ("AFIB", "SR", "STACH")


def made_up_head(bundle, name="mine", *, method="linear", seed=1, own_model=None, **facts):
    """A head with random weights for a loaded bundle."""
    generator = np.random.default_rng(seed)
    features = bundle.model.ecg_encoder.num_features
    dimension = bundle.config.encoder.embedding_dimension
    known = {
        "name": name,
        "task": "synthetic",
        "classes": CLASSES,
        "method": method,
        "prompt_set": None if method == "linear" else "descriptive@5",
        "labels_per_class": 8,
        "labels": dict.fromkeys(CLASSES, 8),
        "records": 20,
        "patients": 19,
        "seed": 0,
        "inverse_penalty": 0.01,
        "input": "features" if method == "linear" else "embedding",
        "validation_macro_auroc": 0.9,
        "zero_shot_macro_auroc": None,
        "dataset_source": "synthetic",
        "dataset_sha256": "d",
        "dataset_source_sha256": "s",
        "synthetic": True,
        "train_folds": (1, 2),
        "validation": (9,),
        "parent_run": bundle.facts.run,
        "parent_digest": bundle.digest,
        "model_sha256": bundle.facts.files["model.safetensors"],
    }
    shape = (len(CLASSES), features if method == "linear" else dimension)
    weight, bias = (generator.normal(size=size).astype(np.float32) for size in (shape, len(CLASSES)))
    return Head(HeadFacts(**known | facts), weight, bias, own_model or {})


def with_heads(parent_uri, folder, *methods):
    """Bundles in a row, each with one head more; the URI of the last. The heads are called as their methods."""
    for method in methods:
        parent = load_bundle(str(parent_uri))
        own = other_encoder(parent) if method == "finetune" else None
        head = made_up_head(parent, method, method=method, own_model=own)
        output = folder / f"with-{method}" / "bundle"
        publish_with_head(str(parent_uri), parent, head, str(output))
        parent_uri = output
    return parent_uri


def other_encoder(bundle):
    """The tensors of a fine-tuned encoder and its projection: the bundle's, each a little larger."""
    state = bundle.model.state_dict()
    names = [name for name in state if name.startswith(("ecg_encoder.", "ecg_projection."))]
    return {name: state[name] * 1.01 if state[name].dtype == torch.float32 else state[name] for name in names}
