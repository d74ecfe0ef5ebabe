"""Puts real ECGs of PTB-XL beside a bundle: `python -m mets_ray.exchange.ptbxl_examples PTBXL_FOLDER BUNDLE_FOLDER`.

One for each of `FINDINGS`, of patients whom the bundle held out for validation: none of them trained it. They chose no
epoch either if `train.choose` was last.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from mets_ray import storage
from mets_ray.bundles.examples import EXAMPLES_FOLDER, LIST_NAME, BundleExample, BundleExamples
from mets_ray.dataset.folds import selections
from mets_ray.errors import DatasetError
from mets_ray.model.bundle import BundleFacts, read_facts
from mets_ray.sources.cells import identifier, literal, whole_number
from mets_ray.sources.csv_table import read_table

FINDINGS = {
    "NORM": "normal ECG",
    "AFIB": "atrial fibrillation",
    "PVC": "premature ventricular complexes",
    "1AVB": "first degree AV block",
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "LVH": "left ventricular hypertrophy",
    "IMI": "inferior infarct",
}
_SAID = {  # in PTB-XL's reports, German or English
    "NORM": r"normales ekg|normal ecg",
    "AFIB": r"vorhofflimmern|(?<!probable )atrial fibrillation",
    "PVC": r"ventrikul.r\S* extrasyst|ventricular premature|premature ventricular",
    "1AVB": r"a-?v.?block i\b|first degree|1st degree",
    "CLBBB": r"linksschenkelblock|left bundle branch block",
    "CRBBB": r"rechtsschenkelblock|right bundle branch block",
    "LVH": r"linkshypertrophie|left ventricular hypertrophy",
    "IMI": r"inferior\S* infar|infar\S* inferior",
}
_RHYTHMS = ("AFIB",)  # their likelihood is 0 in PTB-XL, which means that none was given
_CREDIT = "PTB-XL 1.0.3, Wagner et al. 2020, CC BY 4.0"
_COLUMNS = ("ecg_id", "patient_id", "strat_fold", "scp_codes", "report", "filename_lr")


def add_examples(ptbxl_uri: str, bundle_uri: str) -> BundleExamples:
    """Copy the chosen 100 Hz records, unchanged, and write their list. Raises DatasetError where a finding has none."""
    rows = _held_out(ptbxl_uri, read_facts(bundle_uri))
    chosen: dict[str, Mapping[str, str]] = {}
    for code in FINDINGS:
        patients = {row["patient_id"] for row in chosen.values()}
        chosen[code] = _clearest(code, [row for row in rows if row["patient_id"] not in patients])
    folder, found = storage.join(bundle_uri, EXAMPLES_FOLDER), []
    for code, row in chosen.items():
        words, record = FINDINGS[code], row["filename_lr"].rpartition("/")[2]
        for suffix in (".hea", ".dat"):
            content = storage.read_bytes(storage.join(ptbxl_uri, row["filename_lr"] + suffix))
            storage.write_bytes(storage.join(folder, record + suffix), content)
        title = f"{words[0].upper()}{words[1:]} (PTB-XL {row['ecg_id']})"
        found.append(BundleExample(record=record, finding=words, title=title))
    examples = BundleExamples(credit=_CREDIT, examples=tuple(found))
    storage.write_bytes(storage.join(folder, LIST_NAME), examples.model_dump_json(indent=1).encode())
    return examples


def _held_out(ptbxl_uri: str, facts: BundleFacts) -> list[dict[str, str]]:
    rows = [cells for _, cells in read_table(storage.join(ptbxl_uri, "ptbxl_database.csv"), _COLUMNS).rows]
    rows = [row | {"patient_id": identifier(row["patient_id"])} for row in rows]
    _, validation, _ = selections(facts.train_folds, facts.validation, ())
    fold = np.asarray([whole_number(row["strat_fold"], "strat_fold") for row in rows])
    mask = validation.mask(fold, [row["patient_id"] for row in rows])
    return [row for row, held_out in zip(rows, mask, strict=True) if held_out]


def _clearest(code: str, rows: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The record that has this finding for sure and none of the others above 50 %: of these one whose report says so
    too, in sinus rhythm unless the finding is a rhythm, and with the fewest codes; of equals the first."""

    def codes(row: Mapping[str, str]) -> dict[str, float]:
        return literal(row["scp_codes"], "scp_codes", dict)

    def has_it(row: Mapping[str, str]) -> bool:
        known = codes(row)
        is_sure = known.get(code, -1) >= (0 if code in _RHYTHMS else 100)
        others = [other for other in FINDINGS if other != code and other in known]
        return is_sure and not any(other in _RHYTHMS or known[other] >= 50 for other in others)

    fitting = [row for row in rows if has_it(row)]
    if not fitting:
        raise DatasetError(
            f"no held-out record of PTB-XL has {code} for sure and none of the others above 50 %",
            hint="leave the examples out, or hold out more patients (folds.validation)",
        )

    def rank(row: Mapping[str, str]) -> tuple[bool, bool, int, int]:
        unsaid = re.search(_SAID[code], row["report"].lower()) is None
        out_of_rhythm = code not in _RHYTHMS and "SR" not in codes(row)
        return unsaid, out_of_rhythm, len(codes(row)), int(identifier(row["ecg_id"]))

    return min(fitting, key=rank)


if __name__ == "__main__":
    print(json.dumps(add_examples(*sys.argv[1:3]).model_dump()))
