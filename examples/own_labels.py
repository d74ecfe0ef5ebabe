"""How well do your own words find your own labels? AUROC of each class on a folder of WFDB records.

    python examples/own_labels.py BUNDLE RECORDS LABELS.csv

LABELS.csv has the columns record and label. Each label stands for the wordings below; change them to yours.
For intervals over patients and baselines use `mets-ray evaluate evaluate.prompt_set=FILE`.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import mets_ray

WORDINGS = {
    "SR": ["Sinus rhythm", "Normal sinus rhythm"],
    "AFIB": ["Atrial fibrillation", "Atrial fibrillation with rapid ventricular response"],
    "CLBBB": ["Left bundle branch block", "Complete left bundle branch block"],
}


def main() -> None:
    bundle_uri, records, table = sys.argv[1:]
    predictor = mets_ray.load_bundle(bundle_uri)
    lines = list(csv.DictReader(Path(table).read_text(encoding="utf-8").splitlines()))
    similarities = []
    for line in lines:
        rows = predictor.zero_shot(mets_ray.read_ecg(Path(records) / line["record"]), WORDINGS)
        by_class = {row.class_name: row.similarity for row in rows}
        similarities.append([by_class[name] for name in WORDINGS])
    labels = np.asarray([line["label"] for line in lines])
    for name, column in zip(WORDINGS, np.asarray(similarities).T, strict=True):
        truth = labels == name
        if 0 < truth.sum() < len(truth):
            print(f"{name:<6} AUROC {roc_auc_score(truth, column):.3f}  ({truth.sum()} of {len(truth)} records)")


if __name__ == "__main__":
    main()
