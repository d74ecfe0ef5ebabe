"""MIMIC-IV-ECG's own layout with generated ECGs: tables, headers and samples as PhysioNet has them."""

import csv
from pathlib import Path

import numpy as np

from tests.support.serving import synthetic_ecg

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
STEPS_PER_MV = 200
MEASURES = ("bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
MEASURES += ("p_axis", "qrs_axis", "t_axis")
REPORTS = (
    ("Sinus rhythm", "Normal ECG"),
    ("*** Sinus rhythm ***", "Possible inferior infarct - age undetermined", "Abnormal EKG"),
    ("Atrial fibrillation with rapid ventricular response", "Left axis deviation", "Abnormal ECG"),
    ("Sinus tachycardia",),
    (),
)


def path_of(subject: int, study: int) -> str:
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def write_tables(folder: Path, records, reports=REPORTS) -> None:
    """`records`: (subject_id, study_id); the number of a record chooses its report."""
    with (folder / "record_list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        for subject, study in records:
            table.writerow([subject, study, study, "2180-07-23 08:44:00", path_of(subject, study)])
    with (folder / "machine_measurements.csv").open("w", newline="") as file:
        table = csv.writer(file)
        names = [f"report_{number}" for number in range(18)]
        table.writerow(["subject_id", "study_id", "cart_id", "ecg_time", *names, *MEASURES])
        for number, (subject, study) in reversed(list(enumerate(records))):  # in another order than the list
            parts = list(reports[number % len(reports)])
            measured = ["0.005-150 Hz", "60 Hz <not specified>", 659, 40, 128, 170, 258, 518, 81, 77, 75]
            cells = [*parts, *[""] * (18 - len(parts)), *measured]
            table.writerow([subject, study, 6848296, "2180-07-23 08:44:00", *cells])


def write_records(folder: Path, records) -> None:
    """Format 16, 500 Hz, 10 s; leads in MIMIC's order."""
    for number, (subject, study) in enumerate(records):
        ecg = synthetic_ecg(number, sampling_rate_hz=500)
        rows = [ecg.leads.index(lead) for lead in LEADS]
        digital = np.rint(ecg.signal_mv[rows, :5000] * STEPS_PER_MV).astype("<i2")
        path = folder / path_of(subject, study)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".dat").write_bytes(digital.T.tobytes())
        lines = [f"{study} 12 500 5000 08:44:00 23/07/2180 "]
        for lead, samples in zip(LEADS, digital, strict=True):
            checksum = int(samples.sum(dtype=np.int64)) % 65536
            lines.append(f"{study}.dat 16 {STEPS_PER_MV}.0(0)/mV 16 0 {samples[0]} {checksum} 0 {lead}")
        path.with_suffix(".hea").write_text("\n".join([*lines, f"# <subject_id>: {subject}"]) + "\n")


def some_records(count: int) -> list[tuple[int, int]]:
    """Two ECGs of each patient."""
    return [(10_000_032 + number // 2 * 7, 40_000_017 + number * 13) for number in range(count)]
