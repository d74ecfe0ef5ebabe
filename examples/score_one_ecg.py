"""Score one ECG against diagnoses in your own words.

    python examples/score_one_ecg.py BUNDLE RECORD "atrial fibrillation" "sinus rhythm"

BUNDLE is what `mets-ray pretrain` printed as bundle_uri, RECORD a WFDB record (its path, with or without .hea).
Research software, not a medical device.
"""

import sys

import mets_ray


def main() -> None:
    bundle_uri, record_uri, *diagnoses = sys.argv[1:]
    predictor = mets_ray.load_bundle(bundle_uri)
    try:
        ecg = mets_ray.read_ecg(record_uri)
        rows = predictor.zero_shot(ecg, diagnoses)
    except mets_ray.RecordError as error:  # a missing unit, an absent lead, a flat line: `reason` says which
        raise SystemExit(str(error)) from error
    for row in rows:
        # Scores share 1 among the classes. A z-score tells for one class alone how unusual the ECG is among others.
        unusual = "unknown" if row.z_score is None else f"{row.z_score:+.1f}"
        print(f"{row.score:.3f}  {row.class_name}  (z-score {unusual})")


if __name__ == "__main__":
    main()
