"""Folders of made-up ECGs as a user would have them."""

import csv

import numpy as np
import wfdb

from tests.support.serving import synthetic_ecg


def write_record(folder, name, index=1):
    """A 10 s WFDB record `<folder>/<name>.{hea,dat}` in millivolts; returns the ECG that was written."""
    folder.mkdir(parents=True, exist_ok=True)
    ecg = synthetic_ecg(index)
    wfdb.wrsamp(
        name,
        fs=ecg.sampling_rate_hz,
        units=["mV"] * len(ecg.leads),
        sig_name=list(ecg.leads),
        p_signal=ecg.signal_mv.T.astype(np.float64),
        fmt=["16"] * len(ecg.leads),
        write_dir=str(folder),
    )
    return ecg


def write_wfdb_folder(folder, records):
    """`records` WFDB records with the `manifest.csv` that `prepare.source=wfdb` reads; labels AF and SR."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["record", "report", "labels"])
        for index in range(records):
            write_record(folder, f"{index:05d}_lr", index)
            label, report = (("AF", "Atrial fibrillation."), ("SR", "Sinus rhythm. Normal ECG."))[index % 2]
            table.writerow([f"{index:05d}_lr", report, label])


def write_csv_folder(folder, records):
    """What `examples/own_source.py` reads; returns the ECGs by record id."""
    written = {}
    lines = ["file,patient,report"]
    for index in range(records):
        ecg = synthetic_ecg(index, sampling_rate_hz=500)
        name = f"ecg{index}"
        np.savetxt(
            folder / f"{name}.csv", ecg.signal_mv.T, fmt="%.4f", delimiter=",", header=",".join(ecg.leads), comments=""
        )
        lines.append(f"{name}.csv,patient{index // 2},Sinus rhythm. Normal ECG.")
        written[name] = ecg
    (folder / "reports.csv").write_text("\n".join(lines) + "\n")
    return written
