"""The default recipe and its variants by cross-validation over patients: every record is scored once, by a model that
saw none of its patient's records.

    mets-ray prepare --config jobs/configs/ptbxl_100hz.yaml prepare.patient_folds=20 dataset_uri=/data/both …
    python benchmarks/recipe.py --folder /data/recipe --seeds 0 1 2 --data both=/data/both mitbih=/data/mitbih \
        --variants default "no views" -- --config jobs/configs/ptbxl_100hz.yaml train.epochs=30 …

The data set's folds are dealt out into `--groups` groups, others for each seed. For each variant, seed and group,
`jobs/pretrain.py` trains on the other groups, with a tenth of their patients for validation, and `jobs/evaluate.py`
scores the group: what is measured is what users run. The arguments after `--` go to every job. Finished runs are kept
in the folder and not repeated, so a run that was cut off goes on. The tables go to stderr; the last line of stdout is
one JSON object. `docs/findings.md` reports the results.

An AUROC is over pairs of records of one group (`mets_ray.metrics.cross_validation`), averaged over seeds; intervals are
over patients. A variant differs from the default where the paired interval of the mean of the tasks excludes 0; half of
that interval's length is the smallest difference that can be seen. Data sets that nothing trains on (`mitbih` and any
other name) are scored beside, by the models of the first group: on them nothing is chosen.

Training data by name: `both`, `12sl` and `own` (`prepare.source.report`); with `-unfiltered` they are prepared with
`prepare.highpass_hz=null`, with `-unmeasured` with `prepare.measured_statements=false`. Each of them needs the same
`prepare.patient_folds`. Where time is short, `--tested 0 1` trains and scores these groups alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mets_ray import storage
from mets_ray.dataset.card import read_card
from mets_ray.metrics.cross_validation import CrossValidated, cross_validated_auroc
from mets_ray.metrics.intervals import Interval, percentile_interval
from mets_ray.results.similarity_files import read_similarities

ROOT = Path(__file__).parents[1]
TASKS = ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm")
NO_VIEWS = ("augment.lead_dropout=0", "augment.cropping=0", "augment.gain=0")
SAMPLES, SEED = 1000, 0  # of the bootstrap: the same patients are drawn for all variants
TRAINED_ON = ("both", "12sl", "own")
FREQUENT = 20  # ECGs of a class
FREQUENT_MEAN = f"mean, classes with at least {FREQUENT} ECGs"


@dataclass(frozen=True)
class Variant:
    """How a run differs from the default recipe. `of`: evaluate that variant's bundles again instead of training.
    `baseline`: the folder of the baseline whose scores count, in place of the bundle's own."""

    data: str = "both"
    test: str = "both"  # the same ECGs for all training reports: PTB-XL's own lack some records
    beats: str = "mitbih"
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    of: str = ""
    anchors: bool = True
    baseline: str = ""


VARIANTS = {
    "default": Variant(),
    "linear probe": Variant(
        of="default", evaluate=("evaluate.baselines=[linear_probe]",), baseline="linear_probe_100_of_labels", beats=""
    ),
    "supervised": Variant(
        of="default",
        evaluate=("evaluate.baselines=[supervised]", "evaluate.supervised_epochs=30"),
        baseline="supervised_se_resnet1d_18_100_of_labels",
        beats="",
    ),
    "whole reports": Variant(train=("text.unit=report", "loss=same_report")),
    "no high-pass": Variant(data="both-unfiltered", test="both-unfiltered", beats="mitbih-unfiltered"),
    "no focus on the beat": Variant(of="default", beats="mitbih-whole"),
    "bf16": Variant(train=("train.precision=bf16",)),
    "width 64": Variant(train=("encoder.width=64",)),
    "no measured statements": Variant(data="both-unmeasured"),
    "no views": Variant(train=NO_VIEWS),
    "no moved beats": Variant(train=("augment.retimed=0",)),
    "no lead mask": Variant(train=("encoder.lead_mask=false",)),
    "METS's encoder": Variant(train=("encoder.architecture=resnet1d_18",)),
    "no anchors": Variant(of="default", anchors=False),
    "METS's prompts": Variant(of="default", evaluate=("evaluate.prompt_set=mets",)),
    "METS's prompts, no anchors": Variant(of="default", evaluate=("evaluate.prompt_set=mets",), anchors=False),
    "12SL": Variant(data="12sl"),
    "own reports": Variant(data="own"),
    "as published": Variant(
        data="12sl-unfiltered",
        test="both-unfiltered",
        beats="mitbih-whole-unfiltered",
        train=(
            *NO_VIEWS,
            *("text.unit=report", "loss=one_hot", "train.optimizer=adam", "encoder.lead_mask=false"),
            *("augment.retimed=0", "encoder.architecture=resnet1d_18"),
            *("train.schedule=constant", "train.warmup_fraction=0", "train.gradient_clip_norm=0"),
            *("train.validation_prompt_set=mets", "evaluate.prompt_set=mets"),
        ),
    ),
}


@dataclass(frozen=True)
class Run:
    """One variant, seed and group of folds."""

    variant: str
    seed: int
    group: int

    @property
    def name(self) -> str:
        return f"{self.variant.replace(' ', '_').replace(',', '')}-{self.seed}-{self.group}"


@dataclass(frozen=True)
class Study:
    """What all runs share. `data`: data sets by name; `words`: for every job; `groups`: how many groups of folds;
    `tested`: which of them are trained for and scored."""

    folder: Path
    data: Mapping[str, str]
    words: tuple[str, ...]
    groups: int
    tested: tuple[int, ...]

    def claim(self) -> None:
        """Note what the folder's runs are of. Raises SystemExit where it holds runs of another study."""
        own = {"data": dict(sorted(self.data.items())), "words": list(self.words), "groups": self.groups}
        self.folder.mkdir(parents=True, exist_ok=True)
        noted = self.folder / "study.json"
        earlier = json.loads(noted.read_text()) if noted.exists() else own
        # Data sets may be added: those that nothing trains on are scored when they are first named.
        moved = [name for name in earlier["data"].keys() & own["data"] if earlier["data"][name] != own["data"][name]]
        if moved or any(earlier[key] != own[key] for key in ("words", "groups")):
            raise SystemExit(
                f"`{self.folder}` holds runs of another study, whose results would count as this one's: {earlier}\n"
                "hint: choose another --folder, or the same --groups, --data and settings"
            )
        storage.write_bytes(str(noted), json.dumps({**own, "data": earlier["data"] | own["data"]}).encode())

    def dealt(self, data: str, seed: int) -> list[list[int]]:
        """The folds of each group: dealt out anew for each seed."""
        folds = sorted(read_card(self.data[data]).folds)
        if len(folds) < self.groups:
            raise SystemExit(
                f"`{data}` has {len(folds)} folds for {self.groups} groups: prepare.patient_folds=20 is good"
            )
        order = np.random.default_rng(seed).permutation(folds)
        return [sorted(order[group :: self.groups].tolist()) for group in range(self.groups)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", type=int, default=5, help="each is tested once")
    parser.add_argument("--tested", type=int, nargs="+", help="only these of the groups, from 0; default: all")
    parser.add_argument("--data", nargs="+", required=True, help="name=dataset_uri for each data set in use")
    parser.add_argument("--variants", nargs="+", default=["default"], choices=list(VARIANTS))
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time")
    parser.add_argument("words", nargs="*", help="config file and settings of every job")
    arguments = parser.parse_args()
    data = dict(item.split("=", 1) for item in arguments.data)
    tested = tuple(sorted(set(arguments.tested or range(arguments.groups))))
    if not set(tested) <= set(range(arguments.groups)):
        parser.error(f"--tested {tested}: there are the groups 0 to {arguments.groups - 1}")
    study = Study(arguments.folder, data, tuple(arguments.words), arguments.groups, tested)
    study.claim()
    runs = [
        Run(name, seed, group)
        for seed in arguments.seeds
        for group in study.tested
        for name in sorted(arguments.variants, key=lambda name: bool(VARIANTS[name].of))
    ]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        for trained in (True, False):  # variants that evaluate another one's bundles run after it
            jobs = [one for one in runs if bool(VARIANTS[one.variant].of) != trained]
            for number, one in enumerate(pool.map(lambda job: run(study, job), jobs)):
                print(f"{number + 1} of {len(jobs)}: {one}", file=sys.stderr)
    scored = {name: Scored.read(study, name, arguments.seeds) for name in arguments.variants}
    found = {name: facts(of, scored.get("default")) for name, of in scored.items()}
    for name in found:
        found[name]["beside"] = beside(study, name, arguments.seeds)
    print_tables(found)
    print(json.dumps(found))


def run(study: Study, one: Run) -> str:
    """Train and evaluate what is not there yet. Returns the run's name."""
    variant = VARIANTS[one.variant]
    own = study.folder / one.name
    own.mkdir(parents=True, exist_ok=True)
    groups = study.dealt(variant.data, one.seed)
    rest = sorted(fold for number, group in enumerate(groups) for fold in group if number != one.group)
    folds = [f"folds.train={rest}", "folds.validation=hash:0.1", f"folds.test={groups[one.group]}"]
    common = [*study.words, *folds, f"seed={one.seed}", f"run_uri={own}", *variant.train, *variant.evaluate]
    if variant.of:
        trained = study.folder / Run(variant.of, one.seed, one.group).name / "pretrain.json"
        bundle = json.loads(trained.read_text())["bundle_uri"]
    else:
        bundle = job("pretrain", own, [*common, f"dataset_uri={study.data[variant.data]}"], "pretrain")["bundle_uri"]
    if not variant.anchors:
        bundle = without_anchors(Path(bundle), own / "bundle")
    tested = f"evaluate.bundle_uri={bundle}"
    job("evaluate", own, [*common, f"dataset_uri={study.data[variant.test]}", tested], "scores")
    if one.group == 0 and not variant.baseline:
        # Their folds are not those of the training data, and nothing of them was trained on.
        foreign = [*common, tested, "folds.train=[]", "folds.validation=[]"]
        if variant.beats in study.data:
            beats = [f"dataset_uri={study.data[variant.beats]}", "folds.test=[1]", "evaluate.balanced_per_class=100"]
            job("evaluate", own, [*foreign, *beats], "mitbih")
        for name in others(study):
            job("evaluate", own, [*foreign, f"dataset_uri={study.data[name]}", "folds.test=null"], name)
    return one.name


def others(study: Study) -> list[str]:
    """Data sets that nothing trains on, without MIT-BIH."""
    known = {*TRAINED_ON, "mitbih", "mitbih-whole"}
    return [name for name in study.data if name.removesuffix("-unfiltered").removesuffix("-unmeasured") not in known]


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
        storage.write_bytes(str(answer), done.stdout.strip().splitlines()[-1].encode())
    result: dict[str, Any] = json.loads(answer.read_text())
    return result


def without_anchors(bundle: Path, copy: Path) -> str:
    """A copy of a bundle without anchors, so that prompts are embedded from their own words only."""
    shutil.copytree(bundle, copy, dirs_exist_ok=True)
    facts = storage.unseal((copy / "bundle.json").read_bytes()).facts
    for name in ("anchor_features.safetensors", "anchor_directions.safetensors", "anchor_statements.json"):
        (copy / name).unlink(missing_ok=True)
        facts["files"].pop(name, None)
    (copy / "bundle.json").write_bytes(storage.seal(json.dumps(facts)))
    return str(copy)


@dataclass(frozen=True)
class Scored:
    """The resampled macro AUROC of each task and of their mean, averaged over seeds; [resample] each, value first. The
    mean is also there over classes with at least `FREQUENT` ECGs. `by_seed`: the mean of the tasks. `classes`: the
    AUROC of each class, averaged over seeds."""

    tasks: Mapping[str, tuple[float, np.ndarray]]
    by_seed: tuple[float, ...]
    classes: Mapping[str, float]

    @classmethod
    def read(cls, study: Study, name: str, seeds: list[int]) -> "Scored":
        """From the results of all tested groups and seeds."""
        values: defaultdict[str, list[float]] = defaultdict(list)
        samples: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        classes: dict[str, list[float]] = {}
        for seed in seeds:
            joined = {task: joined_folds(study, name, seed, task) for task in TASKS}
            patients = np.unique(np.concatenate([of.scores.patients for of in joined.values()]))
            for task, of in joined.items():
                frequent = cross_validated_auroc(_frequent(of), samples=SAMPLES, seed=SEED, drawn_from=patients)
                values[f"{task}, frequent"].append(frequent.macro.value)
                samples[f"{task}, frequent"].append(frequent.macro_samples)
                found = cross_validated_auroc(of, samples=SAMPLES, seed=SEED, drawn_from=patients)
                values[task].append(found.macro.value)
                samples[task].append(found.macro_samples)
                for label, interval in zip(of.scores.classes, found.per_class, strict=True):
                    classes.setdefault(f"{task}/{label}", []).append(interval.value)
        tasks = {name: (float(np.mean(values[name])), np.mean(samples[name], axis=0)) for name in values}
        for mean, kind in (("mean", ""), (FREQUENT_MEAN, ", frequent")):
            of_tasks = [tasks.pop(f"{task}{kind}") if kind else tasks[task] for task in TASKS]
            tasks[mean] = (
                float(np.mean([value for value, _ in of_tasks])),
                np.mean([resampled for _, resampled in of_tasks], axis=0),
            )
        by_seed = tuple(float(np.mean([values[task][position] for task in TASKS])) for position in range(len(seeds)))
        return cls(tasks, by_seed, {label: float(np.mean(of)) for label, of in classes.items()})


def joined_folds(study: Study, name: str, seed: int, task: str) -> CrossValidated:
    """One task's scores of all records of the tested groups, by the models of one seed."""
    folds = []
    for group in study.tested:
        answer = json.loads((study.folder / Run(name, seed, group).name / "scores.json").read_text())
        scores = read_similarities(answer["result_uri"], task, VARIANTS[name].baseline)
        assert scores is not None, f"{answer['result_uri']} has no scores of {task}"
        folds.append(scores)
    return CrossValidated.join(folds)


def _frequent(of: CrossValidated) -> CrossValidated:
    """Only the classes with at least `FREQUENT` ECGs."""
    scores, kept = of.scores, np.flatnonzero(of.scores.truth.sum(axis=0) >= FREQUENT)
    classes = tuple(scores.classes[column] for column in kept)
    return replace(
        of, scores=replace(scores, classes=classes, similarity=scores.similarity[:, kept], truth=scores.truth[:, kept])
    )


def facts(of: Scored, default: Scored | None) -> dict[str, Any]:
    """A variant's figures with intervals, and its paired differences from the default."""
    told: dict[str, Any] = {
        "tasks": {task: _interval(value, samples) for task, (value, samples) in of.tasks.items()},
        "by_seed": of.by_seed,
        "classes": of.classes,
    }
    if default is not None and default is not of:
        told["differences"] = {
            task: _interval(value - default.tasks[task][0], samples - default.tasks[task][1])
            for task, (value, samples) in of.tasks.items()
        }
    return told


def _interval(value: float, samples: np.ndarray) -> Interval:
    return percentile_interval(value, samples, 0.95)


def beside(study: Study, name: str, seeds: list[int]) -> dict[str, list[float]]:
    """By seed, what the models of the first group have on data sets that nothing trains on: balanced macro F1 on
    MIT-BIH, by cosines and by each kind of levels, and the mean of the tasks' macro AUROC on the others."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        own = study.folder / Run(name, seed, 0).name
        for other in ("mitbih", *others(study)):
            if not (own / f"{other}.json").exists():
                continue
            answer = json.loads((own / f"{other}.json").read_text())
            if other != "mitbih":
                found[other].append(answer["macro_auroc"])
                continue
            balanced = answer["balanced"]["mitbih"]
            for how, scores in {"": balanced, **balanced["standardised"]}.items():
                said = f"{other}, standardised by {how}" if how else other
                found[said].append(scores["macro_f1"])
                # None of a class without a record; evaluations of older commits have no recalls.
                if recalls := [value for value in scores.get("recalls", {}).values() if value is not None]:
                    found[f"{said}, lowest recall of a class"].append(min(recalls))
    return dict(found)


def print_tables(found: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per variant and task: AUROC with its interval, and the paired difference from the default."""
    for task in (*TASKS, "mean", FREQUENT_MEAN):
        print(f"\n{task}", file=sys.stderr)
        for name, told in found.items():
            value, low, high = told["tasks"][task]
            line = f"{name:<30}{value:.3f} [{low:.3f}, {high:.3f}]"
            if "differences" in told:
                difference, low, high = told["differences"][task]
                sure = " *" if low > 0 or high < 0 else ""
                line += f"   {difference:+.4f} [{low:+.4f}, {high:+.4f}]{sure}, seen above {(high - low) / 2:.4f}"
            if task == "mean":
                line += "   by seed " + " ".join(f"{one:.3f}" for one in told["by_seed"])
            print(line, file=sys.stderr)
    for name, told in found.items():
        for other, values in told["beside"].items():
            print(f"{name:<30}{other}: " + " ".join(f"{value:.3f}" for value in values), file=sys.stderr)


if __name__ == "__main__":
    main()
