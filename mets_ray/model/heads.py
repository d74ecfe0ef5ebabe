"""Heads of a bundle: what `adapt` learnt from labels of one task, scored under its name beside zero-shot.

head_<name>.safetensors is one of the bundle's files; its metadata are the head's facts.

weight [class, input], bias [class]   logits are linear in `HeadFacts.input`: the encoder's features, or the embedding
model.*                               ECG encoder and projection of a fine-tuned head; others use the bundle's
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, from_numpy

from mets_ray.errors import CheckpointError, ConfigError
from mets_ray.model.mets import Mets

HeadMethod = Literal["linear", "text", "finetune"]

_FACTS = "mets_ray_head"
_FILE = re.compile(r"head_([a-z0-9][a-z0-9_-]{0,63})\.safetensors")
_OWN = "model."


def _name(name: str) -> str:
    if not is_head_name(name):
        raise ValueError(f"{name!r} is not the name of a head: use a-z, 0-9, - and _, at most 64")
    return name


class HeadFacts(BaseModel):
    """What a head is, what it learnt from, and the bundle that it belongs to.

    `input`: what its weights are for. `prompt_set`: `set@version` of the words that it began with; None for a linear
    head. `labels`: training ECGs with each class. `labels_per_class`: how many were asked for; None for all.
    `inverse_penalty`: the weight of the labels against the start, chosen on validation; 0 stayed at the start, and None
    was not chosen. `parent_digest`: the bundle that `adapt` began with. `model_sha256`: of its `model.safetensors`,
    whose features the head takes. `zero_shot_macro_auroc`: of the same records and words, None without words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: Annotated[str, AfterValidator(_name)]
    task: str
    classes: tuple[str, ...]
    method: HeadMethod
    input: Literal["features", "embedding"]
    prompt_set: str | None
    labels_per_class: int | None
    labels: dict[str, int]
    records: int
    patients: int
    seed: int
    inverse_penalty: float | None
    validation_macro_auroc: float | None
    zero_shot_macro_auroc: float | None
    dataset_source: str
    dataset_sha256: str
    dataset_source_sha256: str
    patient_folds: int | None = None
    synthetic: bool
    train_folds: tuple[int, ...]
    validation: tuple[int, ...] | str
    parent_run: str
    parent_digest: str
    model_sha256: str


@dataclass(frozen=True)
class Head:
    """A head; the module's docstring says what each array is."""

    facts: HeadFacts
    weight: Float32[np.ndarray, "class input"]
    bias: Float32[np.ndarray, " class"]
    own_model: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def logits(
        self, features: Float32[np.ndarray, "ecg feature"], embeddings: Float32[np.ndarray, "ecg dimension"]
    ) -> Float32[np.ndarray, "ecg class"]:
        """Logits of ECGs, from what the encoder that the head belongs to makes of them."""
        values = features if self.facts.input == "features" else embeddings
        logits: np.ndarray = values @ self.weight.T + self.bias
        return logits


NO_HEADS: Mapping[str, Head] = {}


def head_file(name: str) -> str:
    """The file of a head in its bundle."""
    return f"head_{name}.safetensors"


def is_head_name(name: str) -> bool:
    """Whether a head may be called so."""
    return is_head_file(head_file(name))


def is_head_file(file: str) -> bool:
    """Whether a file of a bundle is a head, by its name."""
    return _FILE.fullmatch(file) is not None


def require_head(heads: Mapping[str, Head], name: str) -> Head:
    """The head of this name. Raises ConfigError if the bundle has none."""
    if name not in heads:
        known = ", ".join(heads) or "none; `mets-ray adapt` makes one"
        raise ConfigError(f"the bundle has no head {name!r}", hint=f"heads of this bundle: {known}")
    return heads[name]


def with_own_model(model: Mets, head: Head) -> Mets:
    """The model with the ECG encoder and projection of a fine-tuned head. Raises CheckpointError if they do not fit."""
    own = copy.deepcopy(model)
    try:
        unknown = own.load_state_dict(dict(head.own_model), strict=False).unexpected_keys
    except RuntimeError as error:
        raise _unusable(head_file(head.facts.name), "", str(error).splitlines()[-1].strip()) from error
    if unknown:
        raise _unusable(head_file(head.facts.name), "", f"its encoder has `{unknown[0]}`")
    return own


def write_head(folder: Path, head: Head) -> str:
    """Write a head's file into the folder of a bundle. Returns the name of the file."""
    arrays = {"weight": head.weight, "bias": head.bias}
    tensors = {name: from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    tensors |= {f"{_OWN}{name}": value.detach().cpu().contiguous() for name, value in head.own_model.items()}
    file = head_file(head.facts.name)
    save_file(tensors, folder / file, {_FACTS: head.facts.model_dump_json()})
    return file


def read_heads(folder: Path, files: Mapping[str, str], model_file: str, where: str) -> dict[str, Head]:
    """The heads among a bundle's files, by name. files: sha256 by file, already checked. model_file: the weights.

    Raises CheckpointError for a file that is no head, one under another name, and a head of other weights.
    """
    found = {}
    for file in filter(is_head_file, files):
        head = read_head(folder / file, where)
        facts = head.facts
        if head_file(facts.name) != file:
            raise _unusable(file, where, f"it is the head `{facts.name}`")
        if facts.model_sha256 != files[model_file]:
            raise CheckpointError(
                f"the head `{facts.name}` is of another bundle: it was trained on `{facts.parent_run}` with digest "
                f"{facts.parent_digest[:8]}, whose weights are not those of this one",
                where=where,
                hint="run `mets-ray adapt` on this bundle: it writes a head of its own",
            )
        found[facts.name] = head
    return found


def read_head(path: Path, where: str) -> Head:
    """One head file. Raises CheckpointError for a file that is damaged or no head."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = HeadFacts.model_validate_json((file.metadata() or {}).get(_FACTS, ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (ValidationError, SafetensorError, OSError, ValueError) as error:
        raise _unusable(path.name, where, f"{type(error).__name__}: {str(error)[:300]}") from error
    own = {name.removeprefix(_OWN): value for name, value in tensors.items() if name.startswith(_OWN)}
    arrays = {name: value.numpy() for name, value in tensors.items() if not name.startswith(_OWN)}
    if set(arrays) != {"weight", "bias"}:
        raise _unusable(path.name, where, f"it holds {', '.join(sorted(arrays)) or 'no array'}")
    wrong = [name for name, array in arrays.items() if len(array) != len(facts.classes) or not np.isfinite(array).all()]
    if wrong:
        raise _unusable(path.name, where, f"`{wrong[0]}` does not fit its {len(facts.classes)} classes")
    return Head(facts, own_model=own, **arrays)


def _unusable(file: str, where: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"`{file}` cannot be read as a head: {why}", where=where, hint="copy the whole bundle again, or run adapt again"
    )
