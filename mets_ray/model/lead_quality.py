"""What a bundle is worth on ECGs that lack some of its leads, and what a reader of their scores is told."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from mets_ray.ecg.lead_sets import nearest_set

NEEDS_EVERY_LEAD = (
    "this bundle was trained on whole ECGs alone, so it needs every lead; use one that was trained with "
    "augment.lead_dropout above 0"
)
"""The hint of a refused ECG."""


class LeadSetQuality(BaseModel):
    """Macro AUROC with one set of leads, the mean over tasks with its 95% interval over patients, and by task.

    Measured by `pretrain` on the run's validation records, which are part of no test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    leads: tuple[str, ...]
    macro_auroc: float | None
    low: float | None
    high: float | None
    tasks: dict[str, float | None]
    records: int


def remark(missing: tuple[str, ...], leads: tuple[str, ...], measured: Mapping[str, LeadSetQuality]) -> tuple[str, str]:
    """The warning about an ECG without the `missing` ones of a bundle's `leads`: (reason, message).

    measured: by name of a set of `LEAD_SETS`, as in `BundleFacts.lead_sets`.
    """
    words = f"{len(leads) - len(missing)} of {len(leads)} leads, without {', '.join(missing)}"
    present = [lead for lead in leads if lead not in missing]
    known = {name: of for name, of in measured.items() if of.macro_auroc is not None}
    if not known:
        return "leads_missing", f"{words}; the quality with fewer leads was not measured for this bundle"
    name = nearest_set(present, {name: of.leads for name, of in known.items()})
    whole = next((of for of in known.values() if of.leads == leads), None)
    beside = f", with {len(leads)} leads {whole.macro_auroc:.3f}" if whole is not None else ""
    near = known[name]
    interval = "" if near.low is None or near.high is None else f" [{near.low:.3f}, {near.high:.3f}]"
    return (
        "leads_missing",
        f"{words}; nearest that was measured: {name}, macro AUROC {near.macro_auroc:.3f}{interval}{beside} "
        f"({near.records:,} validation records)",
    )
