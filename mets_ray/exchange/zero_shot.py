"""Zero-shot scores of ECGs from an exported folder, with numpy and ONNX Runtime alone: no torch, no mets_ray.

    python zero_shot.py ecg.npy descriptive ptbxl_super

Prints for each ECG a JSON object of its classes, each with `score` and `z_score`, which alone can be compared between
classes: standard deviations above the mean of other ECGs. Null where a lead is missing.

`ecg.npy`: float32 millivolts, [lead, sample] or [ecg, lead, sample], with the leads, the sampling rate and the length
of `config.json`, high-pass filtered as it says. A lead that was not recorded is zero throughout, where `config.json`
says that the model takes fewer leads. Research software, not a medical device.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_LARGEST_MV = 20.0
_NO_SPREAD = 1e-6  # of similarities that differ by rounding alone


class ZeroShot:
    """The model of an exported folder; its files are checked against the hashes in `config.json`.

    Raises FileNotFoundError for a missing file, ValueError for one that is another than was exported.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        config = self._folder / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"`{folder}` holds no config.json, so it is no exported folder")
        self.config: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        if self.config.get("onnx") is None:
            raise ValueError(f"`{folder}` was exported without ONNX: export it again with onnx=true")
        onnx = self._read(self.config["onnx"]["file"])
        self._session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        files = {name: json.loads(self._read(of["file"])) for name, of in self.config["classes"].items()}
        self.classes: dict[str, dict[str, dict[str, list[float]]]] = {name: of["tasks"] for name, of in files.items()}
        self._levels: dict[str, dict[str, dict[str, list[float]]]] = {
            name: of.get("levels", {}) for name, of in files.items()
        }

    def embed(self, signal_mv: np.ndarray) -> np.ndarray:
        """Unit vectors float32 [ecg, dimension] of ECGs in millivolts, [ecg, lead, sample].

        Raises ValueError for another shape, for values that are not finite or no millivolts, for an ECG without any
        signal, for leads of one value, and for absent leads where the model needs all.
        """
        ecg = self.config["ecg"]
        expected = (len(ecg["leads"]), ecg["samples"])
        if signal_mv.ndim != 3 or signal_mv.shape[1:] != expected:
            raise ValueError(f"the ECGs have the shape {signal_mv.shape}, not [ecg, {expected[0]}, {expected[1]}]")
        if not np.abs(signal_mv).max(initial=0.0) <= _LARGEST_MV:  # so NaN is refused as well
            raise ValueError(f"values must be finite and within {_LARGEST_MV:g} mV: are these microvolts?")
        is_absent = (signal_mv == 0).all(axis=-1)
        if is_absent.all(axis=1).any():
            raise ValueError("all leads of an ECG are zero throughout: nothing was recorded")
        if ((np.ptp(signal_mv, axis=-1) == 0) & ~is_absent).any():
            raise ValueError("all samples of a lead are equal; a lead that was not recorded must be zero throughout")
        if not ecg["takes_fewer_leads"] and is_absent.any():
            raise ValueError("a lead is zero throughout, and this model needs every lead")
        (embedding,) = self._session.run(["embedding"], {"signal_mv": signal_mv.astype(np.float32)})
        found: np.ndarray = embedding
        return found

    def scores(
        self, signal_mv: np.ndarray, prompt_set: str, task: str, *, multi_label: bool = False
    ) -> tuple[list[str], np.ndarray]:
        """(class names, scores float32 [ecg, class]): softmax over the classes, or each alone with `multi_label`.

        They are not calibrated. Raises ValueError as `embed`, and for a prompt set or a task that is not there.
        """
        names, similarity = self._similarity(signal_mv, prompt_set, task)
        return names, self._scores(similarity, multi_label=multi_label)

    def z_scores(self, signal_mv: np.ndarray, prompt_set: str, task: str) -> tuple[list[str], np.ndarray]:
        """(class names, z-scores float32 [ecg, class]): how unusual an ECG's similarity to each class is, in standard
        deviations above the mean of the ECGs of the bundle's reference.

        Unlike scores they can be compared between classes. NaN for ECGs without all leads, because those of the
        reference have them, and for all where the folder was exported from a bundle without a reference. Raises
        ValueError as `scores`.
        """
        names, similarity = self._similarity(signal_mv, prompt_set, task)
        return names, self._z_scores(signal_mv, similarity, prompt_set, task)

    def scores_and_z_scores(self, signal_mv: np.ndarray, prompt_set: str, task: str) -> list[dict[str, Any]]:
        """For each ECG its classes, each with `score` and `z_score`, None where unknown; embeds each ECG once."""
        names, similarity = self._similarity(signal_mv, prompt_set, task)
        scores, z_scores = self._scores(similarity), self._z_scores(signal_mv, similarity, prompt_set, task)
        return [
            {
                name: {"score": float(score), "z_score": None if np.isnan(z) else float(z)}
                for name, score, z in zip(names, of_scores, of_z, strict=True)
            }
            for of_scores, of_z in zip(scores, z_scores, strict=True)
        ]

    def _scores(self, similarity: np.ndarray, *, multi_label: bool = False) -> np.ndarray:
        logits = self.config["logit_scale"] * similarity
        if multi_label:
            scores = 1 / (1 + np.exp(-(logits + self.config["logit_bias"])))
        else:
            raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
            scores = raised / raised.sum(axis=-1, keepdims=True)
        found: np.ndarray = scores.astype(np.float32)
        return found

    def _z_scores(self, signal_mv: np.ndarray, similarity: np.ndarray, prompt_set: str, task: str) -> np.ndarray:
        levels = self._levels[prompt_set].get(task)
        if levels is None:
            return np.full_like(similarity, np.nan)
        mean, deviation = np.asarray(list(levels.values())).T
        found = (similarity - mean) / np.where(deviation > _NO_SPREAD, deviation, np.inf)
        found[(signal_mv == 0).all(axis=-1).any(axis=-1)] = np.nan
        z_scores: np.ndarray = found.astype(np.float32)
        return z_scores

    def _similarity(self, signal_mv: np.ndarray, prompt_set: str, task: str) -> tuple[list[str], np.ndarray]:
        tasks = self.classes.get(prompt_set, {})
        if task not in tasks:
            known = [f"{name} {known}" for name, of in self.classes.items() for known in of]
            raise ValueError(f"there are no classes `{prompt_set} {task}`; there are: {', '.join(known)}")
        vectors = np.asarray(list(tasks[task].values()), dtype=np.float32)
        return list(tasks[task]), self.embed(signal_mv) @ vectors.T

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        if not path.is_file():
            raise FileNotFoundError(f"`{name}` is missing from `{self._folder}`: download the whole folder again")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.config["sha256"][name]:
            raise ValueError(f"`{name}` is not the file that was exported (another sha256): download it again")
        return content


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit("usage: python zero_shot.py ECG.npy PROMPT_SET TASK")
    path, prompt_set, task = sys.argv[1:]
    try:
        signal_mv = np.load(path)
        signal_mv = signal_mv.reshape(-1, *signal_mv.shape[-2:])
        rows = ZeroShot(Path(__file__).parent).scores_and_z_scores(signal_mv, prompt_set, task)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
