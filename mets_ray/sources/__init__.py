"""Sources of ECGs: their manifests (patient, fold, report, labels) and how to read one record."""

__all__ = [
    "arrow_table",
    "catalogue",
    "cinc",
    "code15",
    "csn",
    "csv_table",
    "files",
    "manifest",
    "mimic",
    "mitbih",
    "parquet_table",
    "ptbxl",
    "snomed",
    "sph",
    "statements_12sl",
    "synthetic",
    "table_manifest",
]
