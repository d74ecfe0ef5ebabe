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
        print(f"{row.score:.3f}  {row.class_name}  (cosine {row.similarity:+.3f})")


if __name__ == "__main__":
    main()
