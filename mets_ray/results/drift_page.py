"""What `score` found when it compared its ECGs with those that the bundle was made with: a page and JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mets_ray.metrics.input_drift import FeatureDrift, InputDrift
from mets_ray.metrics.intervals import number_json
from mets_ray.pictures.bin_shares import BinShares, draw_bin_shares
from mets_ray.pictures.figure import palette_png
from mets_ray.results.page import Cell, Finding, Page, Picture, Section, Table

_MOST_DRAWN = 9
_KINDS = {
    "amplitude_mv": ("Amplitudes", "Check the unit and the gain of the source; children and athletes differ as well."),
    "polarity": ("Signs of the leads", "Check the names, the order and the signs of the leads."),
    "heart_rate_per_min": ("Heart rates", "Check the sampling rate of the source; or these are other patients."),
    "centroid_hz": ("Frequencies", "Check the sampling rate and the filters of the source."),
    "fast_share": (
        "Fast parts of the signal",
        "Check noise and low-pass filters of the source, and its sampling rate.",
    ),
    "limb_leads_disagree": ("Limb leads that contradict each other", "Check the names and the signs of I, II and III."),
    "flat_leads": ("Flat leads", "Look at some of these ECGs: padding, or an electrode that came off."),
    "leads_recorded": ("Numbers of leads", "See the scores with fewer leads in the evaluation report of the bundle."),
}
_OF_EMBEDDINGS = (
    "Embeddings",
    "To the encoder these ECGs differ from those that the bundle was made with. Evaluate and calibrate the bundle on "
    "labelled records of this source before you rely on its scores.",
)
_METHOD = (
    "PSI is the population stability index over bins cut at the deciles of the reference; KS the largest difference of "
    "the cumulated shares. The threshold is what random halves of the reference's patients stay below, all features "
    "together, with 99 in 100 such halves, taken to the number of patients here. Low and high: the share of these ECGs "
    "that lie in the lowest and in the highest bin, and, in brackets, of those of the reference. A drift says that "
    "inputs differ, not that scores are wrong; and without one they may be wrong all the same."
)


def drift_page(found: InputDrift, title: str, facts: Mapping[str, str], *, held_out: bool) -> Page:
    """The page. held_out: whether the reference's embeddings are of ECGs that did not train the bundle."""
    return Page(
        title, verdict=list(_verdict(found)), facts=facts, sections=(_features(found), _embeddings(found, held_out))
    )


def drift_json(found: InputDrift) -> dict[str, Any]:
    """The same as JSON."""
    embeddings = found.embeddings
    return {
        "records": found.records,
        "patients": found.patients,
        "drifted": [one.name for one in found.drifted],
        "features": {
            row.name: {"psi": row.value, "drifted": row.has_drifted}
            | {name: value for name, value in vars(row).items() if name not in ("name", "value")}
            for row in found.features
        },
        "embeddings": None
        if embeddings is None
        else {
            "frechet_squared": embeddings.value,
            "threshold": embeddings.threshold,
            "mean_shift_sd": number_json(found.shift),
            "drifted": embeddings.has_drifted,
        },
    }


def _verdict(found: InputDrift) -> Iterator[Finding]:
    findings = []
    for kind, (title, remedy) in _KINDS.items():
        rows = [row for row in found.features if row.name.partition(":")[0] == kind]
        drifted = sorted((row for row in rows if row.has_drifted), key=lambda row: -row.ratio)
        if drifted:
            leads = ", ".join(row.name.partition(":")[2] for row in drifted)
            of_leads = f"Drifted in {len(drifted)} of {len(rows)} leads: {leads}. " if ":" in drifted[0].name else ""
            worst = drifted[0]
            words = (
                f"PSI {worst.value:.3g}, {worst.ratio:.1f} times its threshold{' in the first' * (len(drifted) > 1)}."
            )
            findings.append(Finding("look", title, of_leads + words, remedy))
        elif rows:
            findings.append(Finding("fine", title, "As in the reference, up to chance."))
    title, remedy = _OF_EMBEDDINGS
    if found.embeddings is None:
        findings.append(Finding("look", title, "Not compared: there are too few patients, here or in the reference."))
    elif found.embeddings.has_drifted:
        words = f"Fréchet distance {found.embeddings.value:.3g}, {found.embeddings.ratio:.1f} times its threshold."
        findings.append(Finding("look", title, words, remedy))
    else:
        findings.append(Finding("fine", title, "As in the reference, up to chance."))
    yield from sorted(findings, key=lambda finding: finding.level == "fine")


def _features(found: InputDrift) -> Section:
    header = ("feature", "PSI", "threshold", "KS", "low", "high", "not measured")
    ranked = sorted(found.features, key=lambda row: -row.ratio)
    text = f"{found.records:,} ECGs of {found.patients:,} patients. {_METHOD}"
    table = Table("‡ has drifted; the farthest first", header, [_cells(row) for row in ranked])
    return Section("Features of the signals", text, (table,), _pictures([row for row in ranked if row.has_drifted]))


def _pictures(drifted: Sequence[FeatureDrift]) -> tuple[Picture, ...]:
    if not drifted:
        return ()
    panels = [BinShares(_shown(row.name), row.edges, row.shares, row.reference_shares) for row in drifted[:_MOST_DRAWN]]
    png = draw_bin_shares(panels, "What has drifted the farthest")
    alt = f"Shares by bin, here and in the reference, of {', '.join(panel.label for panel in panels)}"
    return (Picture(palette_png(png), alt, "Bins are cut at the deciles of the reference; n: not measured."),)


def _cells(row: FeatureDrift) -> tuple[Cell, ...]:
    shares = (f"{row.shares[place]:.1%} ({row.reference_shares[place]:.1%})" for place in (0, -2, -1))
    return (_shown(row.name) + " ‡" * row.has_drifted, row.value, row.threshold, row.ks, *shares)


def _shown(name: str) -> str:
    return name.replace(":", " ")


def _embeddings(found: InputDrift, held_out: bool) -> Section:
    of = found.embeddings
    if of is None:
        return Section("Embeddings", "Not compared: there are too few patients, here or in the reference.")
    words = (
        "ECGs of the training data set that were held out from training"
        if held_out
        else "the ECGs that trained the bundle, which a model places differently from new ones: expect some drift"
    )
    text = f"Squared Fréchet distance along the principal axes of the reference: {words}."
    shift = "–" if math.isnan(found.shift) else f"{found.shift:.3f}"
    row = ("‡ has drifted" if of.has_drifted else "as in the reference", of.value, of.threshold, shift)
    return Section("Embeddings", text, (Table("", ("", "distance", "threshold", "shift of the mean, SD"), [row]),))
