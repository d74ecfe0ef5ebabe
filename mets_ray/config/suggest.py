"""`did you mean`: from a word that is no setting to the setting that was probably meant."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mets_ray.config.older import MOVED
from mets_ray.config.settings import Config
from mets_ray.config.source import SOURCES, SourceSettings, source_class

# What users of other training tools type (Lightning, Hugging Face, OpenCLIP, argparse scripts), by its last part.
_ELSEWHERE = {
    "lr": "train.learning_rate",
    "max_lr": "train.learning_rate",
    "wd": "train.weight_decay",
    "bs": "train.batch_size",
    "batch_size": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "global_batch_size": "train.batch_size",
    "epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "optim": "train.optimizer",
    "scheduler": "train.schedule",
    "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule",
    "warmup": "train.warmup_fraction",
    "warmup_ratio": "train.warmup_fraction",
    "warmup_steps": "train.warmup_fraction",
    "grad_clip": "train.gradient_clip_norm",
    "max_grad_norm": "train.gradient_clip_norm",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "accumulate_grad_batches": "train.micro_batch_size",
    "amp": "train.precision",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "workers": "train.num_workers",
    "num_gpus": "train.num_workers",
    "gpus": "train.device",
    "accelerator": "train.device",
    "world_size": "train.num_workers",
    "ckpt": "train.resume",
    "resume_from_checkpoint": "train.resume",
    "pretrained": "train.init_from",
    "random_seed": "seed",
    "data": "dataset_uri",
    "data_dir": "dataset_uri",
    "data_path": "dataset_uri",
    "dataset": "dataset_uri",
    "output": "run_uri",
    "output_dir": "run_uri",
    "out_dir": "run_uri",
    "save_dir": "run_uri",
    "logs": "run_uri",
    "model": "text.model",
    "lm": "text.model",
    "text_model": "text.model",
    "bert": "text.model",
    "max_len": "text.max_length",
    "bundle": "evaluate.bundle_uri",
    "checkpoint": "evaluate.bundle_uri",
    "prompts": "evaluate.prompt_set",
    "classes": "evaluate.prompt_set",
    "sampling_rate": "prepare.sampling_rate_hz",
    "fs": "prepare.sampling_rate_hz",
    "duration": "prepare.duration_s",
    "mixed_precision": "train.precision",
    "dim": "encoder.embedding_dimension",
    "embed_dim": "encoder.embedding_dimension",
}


def known_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its field, in the order of the tree; below `prepare.source` the keys of every kind."""
    for key, field in settings_of(Config):
        yield key, field
        if field.annotation is SourceSettings:
            for kind in SOURCES:
                of_kind = source_class(kind).model_fields
                yield from ((f"{key}.{name}", of_kind[name]) for name in of_kind if name != "kind")


def suggestion(key: str) -> str:
    """A hint for a key that is no setting: `did you mean ...?`, or where all settings are listed."""
    close = nearest(key)
    return f"did you mean `{close}`?" if close else "--help lists all settings"


def nearest(key: str) -> str | None:
    """The setting that `key` was probably meant to be: its new name, another tool's word, or one that looks like it."""
    known = list(dict.fromkeys(name for name, _ in known_settings()))
    if key in MOVED:
        return MOVED[key]
    section, _, leaf = key.rpartition(".")
    leaf = leaf.replace("-", "_").lower()
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    meant = _ELSEWHERE.get(leaf)
    if meant and (not section or meant.startswith(f"{section}.") or not same_leaf):
        return meant
    if len(same_leaf) == 1:
        return same_leaf[0]
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return near[0]
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    found = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return leaves[found[0]] if found else None


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below `model` with its field, in the order of the tree; a source is one key."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not SourceSettings:
            yield from settings_of(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field
