"""Ablation of the default recipe: pretrain and evaluate with and without each part, with several seeds each.

    python benchmarks/recipe.py --folder /data/recipe --seeds 0 1 2 --data both=s3://…/ptbxl 12sl=s3://…/ptbxl-12sl \
        own=s3://…/ptbxl-own mitbih=s3://…/mitbih -- --config jobs/configs/ptbxl_100hz.yaml folds.train=[10] …

The arguments after `--` go to every job. Each run calls `jobs/pretrain.py` and `jobs/evaluate.py`, so what is measured
is what users run. Finished runs are kept in the folder and not repeated. The last line of stdout is one JSON object;
the tables go to stderr. `docs/findings.md` reports the results.

Data sets by name: `both`, `12sl` and `own` (`prepare.source.report`), `mitbih`; with `-unfiltered` they are prepared
with `prepare.highpass_hz=null`, and the card of a `mitbih-whole` has `"focus_s": null`. MIT-BIH is skipped if it is not
given.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mets_ray import storage

ROOT = Path(__file__).parents[1]
TASKS = ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm")
NO_VIEWS = ("augment.lead_dropout=0", "augment.cropping=0", "augment.gain=0")
LABELS = ("evaluate.baselines=[supervised]", "evaluate.label_shares=[1.0]", "evaluate.supervised_epochs=30")


@dataclass(frozen=True)
class Variant:
    """How a run differs from the default recipe. `of`: evaluate that variant's bundle again instead of training."""

    data: str = "both"
    test: str = "both"  # the same ECGs for all training reports: PTB-XL's own lack some records
    beats: str = "mitbih"
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    of: str = ""
    anchors: bool = True
    baseline: bool = False  # report the supervised baseline, not the bundle's own scores


VARIANTS = {
    "default": Variant(),
    "whole reports": Variant(train=("text.unit=report", "loss=same_report")),
    "no high-pass": Variant(data="both-unfiltered", test="both-unfiltered", beats="mitbih-unfiltered"),
    "no focus on the beat": Variant(of="default", beats="mitbih-whole"),
    "no views": Variant(train=NO_VIEWS),
    "no anchors": Variant(of="default", anchors=False),
    "METS's prompts": Variant(of="default", evaluate=("evaluate.prompt_set=mets",)),
    "METS's prompts, no anchors": Variant(of="default", evaluate=("evaluate.prompt_set=mets",), anchors=False),
    "12SL": Variant(data="12sl"),
    "own reports": Variant(data="own"),
    "supervised": Variant(of="default", evaluate=LABELS, beats="", baseline=True),
    "as published": Variant(
        data="12sl-unfiltered",
        test="both-unfiltered",
        beats="mitbih-whole-unfiltered",
        train=(
            *NO_VIEWS,
            *("text.unit=report", "loss=one_hot", "train.optimizer=adam"),
            *("train.schedule=constant", "train.warmup_fraction=0", "train.gradient_clip_norm=0"),
            *("train.validation_prompt_set=mets", "evaluate.prompt_set=mets"),
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", required=True, help="name=dataset_uri for each data set in use")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time")
    parser.add_argument("words", nargs="+", help="config file and settings of every job")
    arguments = parser.parse_args()
    data = dict(item.split("=", 1) for item in arguments.data)
    trained = [name for name in arguments.variants if not VARIANTS[name].of]
    again = [name for name in arguments.variants if VARIANTS[name].of]
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in arguments.variants}
    with ThreadPoolExecutor(arguments.parallel) as pool:
        for names in (trained, again):  # variants that evaluate another one's bundle run after it
            jobs = [(name, seed) for seed in arguments.seeds for name in names]
            results = pool.map(lambda job: run(*job, arguments.folder, data, arguments.words), jobs)
            for (name, seed), result in zip(jobs, results, strict=True):
                found[name][seed] = result
    for task in (*TASKS, "mean", "mitbih"):
        print_table(task, found)
    print(json.dumps(found))


def run(name: str, seed: int, folder: Path, data: dict[str, str], words: list[str]) -> dict[str, Any]:
    """AUROC of each PTB-XL task with its interval, and the balanced macro F1 on MIT-BIH."""
    variant = VARIANTS[name]
    own = folder / f"{name.replace(' ', '_').replace(',', '')}-{seed}"
    own.mkdir(parents=True, exist_ok=True)
    common = [*words, f"seed={seed}", f"run_uri={own}", *variant.train, *variant.evaluate]
    if variant.of:
        bundle = json.loads((folder / f"{variant.of}-{seed}" / "pretrain.json").read_text())["bundle_uri"]
    else:
        bundle = job("pretrain", own, [*common, f"dataset_uri={data[variant.data]}"], "pretrain")["bundle_uri"]
    if not variant.anchors:
        bundle = without_anchors(Path(bundle), own / "bundle")
    scored = job(
        "evaluate", own, [*common, f"dataset_uri={data[variant.test]}", f"evaluate.bundle_uri={bundle}"], "ptbxl"
    )
    metrics = json.loads((Path(scored["result_uri"]) / "metrics.json").read_text())
    scores = {row["task"]: row for row in metrics["baselines"]} if variant.baseline else metrics["tasks"]
    result = {task: {key: scores[task][key] for key in ("value", "lo", "hi")} for task in TASKS}
    result["mean"] = {"value": statistics.fmean(result[task]["value"] for task in TASKS)}
    if not variant.baseline:
        result["classes"] = {key: of["value"] for key, of in scores["ptbxl_super"]["classes"].items()}
    if variant.beats in data:
        beats = [*common, f"dataset_uri={data[variant.beats]}", "folds.test=[1]", f"evaluate.bundle_uri={bundle}"]
        scored = job("evaluate", own, [*beats, "evaluate.balanced_per_class=100"], "mitbih")
        metrics = json.loads((Path(scored["result_uri"]) / "metrics.json").read_text())["balanced"]["mitbih"]
        f1 = metrics["scores"]["macro_f1"]
        result["mitbih"] = {"value": f1["value"], "lo": f1["lo"], "hi": f1["hi"], "confusion": metrics["confusion"]}
    return result


def job(kind: str, folder: Path, words: list[str], name: str) -> dict[str, Any]:
    """The last line of a job's stdout; a job that has already finished is not run again."""
    answer = folder / f"{name}.json"
    if not answer.exists():
        with (folder / f"{name}.log").open("w") as log:
            done = subprocess.run(
                [sys.executable, str(ROOT / "jobs" / f"{kind}.py"), *words],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=os.environ, check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{kind} ended with {done.returncode}: see {folder / name}.log")
        answer.write_text(done.stdout.strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(answer.read_text())
    return result


def without_anchors(bundle: Path, copy: Path) -> str:
    """A copy of a bundle without anchors, so that prompts are embedded from their own words only."""
    shutil.copytree(bundle, copy, dirs_exist_ok=True)
    (copy / "anchor_features.safetensors").unlink(missing_ok=True)
    facts = storage.unseal((copy / "bundle.json").read_bytes()).facts
    facts["files"].pop("anchor_features.safetensors", None)
    (copy / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))
    return str(copy)


def print_table(task: str, found: dict[str, dict[int, dict[str, Any]]]) -> None:
    """One line per variant: mean over seeds, each seed, and the mean paired difference from the default recipe."""
    print(f"\n{task}", file=sys.stderr)
    for name, seeds in found.items():
        values = {seed: result[task]["value"] for seed, result in seeds.items() if task in result}
        if not values:
            continue
        each = "  ".join(f"{value:.3f}" for value in values.values())
        paired = [
            value - found["default"][seed][task]["value"]
            for seed, value in values.items()
            if seed in found.get("default", {})
        ]
        difference = f"{statistics.fmean(paired):+.3f}" if paired and name != "default" else ""
        print(f"{name:<30}{statistics.fmean(values.values()):.3f}  ({each})  {difference}", file=sys.stderr)


if __name__ == "__main__":
    main()
