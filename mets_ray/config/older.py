"""Settings of earlier versions: where each went, so that old bundles are read and old words get the new name."""

from typing import Any

MOVED = {
    "prepare.source_uri": "prepare.source.uri",
    "prepare.manifest_uri": "prepare.source.manifest_uri",
    "prepare.ptbxl_records": "prepare.source.records",
    "prepare.report_source": "prepare.source.report",
    "prepare.statements_uri": "prepare.source.statements_uri",
    "prepare.mitbih_beats": "prepare.source.beats",
    "prepare.cinc_database": "prepare.source.database",
    "prepare.cinc_stretch": "prepare.source.stretch",
    "synthetic.records": "prepare.source.records",
    "loss.targets": "loss",
}
"""Key until version 0.1 → key since then."""

_KEYS_OF = {
    "synthetic": {},
    "ptbxl": {
        "source_uri": "uri",
        "ptbxl_records": "records",
        "report_source": "report",
        "statements_uri": "statements_uri",
    },
    "wfdb": {"source_uri": "uri", "manifest_uri": "manifest_uri"},
    "mitbih": {"source_uri": "uri", "mitbih_beats": "beats"},
    "cinc": {"source_uri": "uri", "cinc_database": "database", "cinc_stretch": "stretch"},
}

_ADDED: dict[str, dict[str, Any]] = {
    "prepare": {"missing_leads": "reject", "measured_statements": False},
    "encoder": {"lead_mask": False, "architecture": "resnet1d_18"},
    "augment": {"usual_leads": 0.0, "retimed": 0.0},
}
"""Settings that came later than some bundles and runs, with what was done before."""


def from_older(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree of settings as an earlier version kept it in a bundle, in today's form; any other tree as it is."""
    prepare, loss = tree.get("prepare"), tree.get("loss")
    if isinstance(prepare, dict) and isinstance(prepare.get("source"), str):
        kind = prepare["source"]
        source = {"kind": kind} | {new: prepare[old] for old, new in _KEYS_OF.get(kind, {}).items() if old in prepare}
        if kind == "synthetic":
            source |= tree.get("synthetic") or {}
        moved = {old.split(".")[1] for old in MOVED if old.startswith("prepare.")}
        prepare = {key: value for key, value in prepare.items() if key not in moved} | {"source": source}
        tree = {key: value for key, value in tree.items() if key != "synthetic"} | {"prepare": prepare}
    for section, since in _ADDED.items():
        if isinstance(tree.get(section), dict):
            tree = tree | {section: since | tree[section]}
    if isinstance(loss, dict):
        of_statements = (tree.get("text") or {}).get("unit", "statement") == "statement"
        tree = tree | {"loss": "sigmoid" if of_statements else loss.get("targets", "one_hot")}
    return tree
