"""Models with random weights, which are as fast as trained ones: a bundle, and a language model of MiniLM's size."""

import json
import re
from pathlib import Path

import numpy as np
import torch

from mets_ray.config.load import load_config
from mets_ray.ecg.ecg import LEADS
from mets_ray.model.bundle import Bundle, BundleFacts, build_model, write_bundle
from mets_ray.sources.synthetic import synthetic_manifest
from mets_ray.tasks.prompt_sets import load_prompt_set, prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.language_model import PACKAGED_MODEL, resolve_text_model
from mets_ray.text.reports import text_id

FEATURES = 384  # of MiniLM
_LM = {
    "hidden_size": FEATURES,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 4 * FEATURES,
    "max_position_embeddings": 512,
}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_random_bundle(folder: Path, task: str, *, sampling_rate_hz: int = 100, width: int = 64) -> str:
    """A bundle with the descriptive prompts of `task`, whose features are random. Returns its path."""
    folder.mkdir(parents=True)
    config = load_config(None, [f"encoder.width={width}"])
    prompt_set = load_prompt_set("descriptive")
    texts = prompt_texts([prompt_set], [task])
    features = np.random.default_rng(0).standard_normal((len(texts), FEATURES)).astype(np.float16)
    table = EmbeddingTable.build(np.asarray([text_id(text) for text in texts]), features)
    facts = BundleFacts(
        run="random", sampling_rate_hz=sampling_rate_hz, duration_s=10.0, leads=LEADS, text_model="none",
        text_pooling="mean", text_max_length=128, text_fingerprint="none", text_features=FEATURES,
        dataset_source="synthetic", dataset_sha256="", synthetic=True, train_folds=(), validation=(),
        prompt_sets={"descriptive": prompt_set}, metrics={}, history=(),
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(config, leads=len(LEADS), text_features=FEATURES)
    write_bundle(folder, Bundle(model, config, facts, table))
    return str(folder)


def find_or_make_lm(folder: Path) -> str:
    """`packaged-minilm` where it is installed; otherwise a BERT of its size with random weights, in `folder`."""
    try:
        resolve_text_model(PACKAGED_MODEL)
    except Exception:  # it is an extra
        return _write_random_lm(folder)
    return PACKAGED_MODEL


def _write_random_lm(folder: Path) -> str:
    from transformers import BertConfig, BertModel

    reports = " ".join(row.report for row in synthetic_manifest(256, 0, 100, 10).rows)
    words = sorted(set(re.findall("[a-z]{2,}", reports.lower())))  # so that a text has as many tokens as with MiniLM
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*_SPECIAL, *letters, *words, *(f"##{letter}" for letter in letters)]
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(vocabulary), **_LM)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 512, "do_lower_case": True})
    )
    return str(folder)
