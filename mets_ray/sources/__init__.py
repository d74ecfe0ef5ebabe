"""Sources of ECGs: their manifests (patient, fold, report, labels) and how to read one record."""

__all__ = [
    "catalogue",
    "cinc",
    "csn",
    "csv_table",
    "manifest",
    "mitbih",
    "ptbxl",
    "statements_12sl",
    "synthetic",
    "wfdb_folder",
]
