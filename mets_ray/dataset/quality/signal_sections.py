"""The sections of the quality page on signals and leads."""

from mets_ray.dataset.quality.counts import BOUNDS, EDGES, QualityCounts, quantiles
from mets_ray.dataset.quality.words import is_electrodes, percent, short, suspect_words
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_order import LIMB_BOUND
from mets_ray.pictures.distributions import Histogram, draw_histograms, draw_lead_ranges
from mets_ray.pictures.figure import palette_png
from mets_ray.results.page import Picture, Section, Table

_SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)
_MOST_ROWS = 20
_BY_LEAD = {
    "amplitude_mv": "Peak to peak, mV",
    "offset_mv": "Mean, mV from zero",
    "flat_s": "Longest flat stretch, s",
}
_NOISE = {
    "wander_share": "Wander: power below 0.5 Hz, share",
    "hum_50hz_ratio": "50 Hz hum: power over the ECG's",
    "hum_60hz_ratio": "60 Hz hum: power over the ECG's",
}
_ORDER = {
    "einthoven_uv": "I + III − II, RMS in µV",
    "augmented_uv": "aVR + aVL + aVF, RMS in µV",
    "limb_residual": "All four relations, RMS over the leads'",
}

_SIGNALS_TEXT = (
    "Wander is the share of power below 0.5 Hz of that below 40 Hz (1 − basSQI of Clifford et al. 2012, with 0.5 Hz "
    "in place of 1 Hz). Hum is the power within 1 Hz of the mains, above what the 3 Hz on both sides let expect, over "
    "the power from 0.5 to 40 Hz: at 0.01 it has a tenth of the ECG's amplitude. It is measured in records of more "
    "than 108 Hz (50 Hz) and 128 Hz (60 Hz). Both are of the worst lead, from a power spectrum with a Hann window. "
    "The dashed lines are the bounds of the first table."
)

_LEADS_TEXT = (
    "Two leads with each other's name, or one with the wrong sign, contradict the others: III = II − I, aVR = −(I + "
    "II)/2, aVL = I − II/2, aVF = II − I/2, from 0.5 to 40 Hz. If one exchange mends that, it is named. Exchanged "
    "electrodes fit together all the same; there I and II are compared with what V1 to V6 let expect (after Kors & "
    "van Herpen 2001). With two of these electrodes exchanged, 95% of 498 ECGs of PTB-XL were named, and 5 of 1,992 "
    "as they are. Paced beats and large infarcts may look alike, and left arm and left leg cannot be told apart."
)


def signals_section(counts: QualityCounts, highpass_hz: float | None) -> Section:
    """Amplitudes, offsets, flat stretches, clipping, wander and hum. highpass_hz: of the stored signals."""
    tables, pictures = [_bounds_table(counts)], []
    ranges = {
        name: {lead: quantiles(counts.distributions[name][row], EDGES[name], _SHARES) for row, lead in enumerate(LEADS)}
        for name in _BY_LEAD
        if counts.distributions[name].any()
    }
    for name, by_lead in ranges.items():
        rows = [(lead, *map(short, values)) for lead, values in by_lead.items()]
        tables.append(Table(_BY_LEAD[name], ("lead", *map(_share_name, _SHARES)), rows))
    if ranges:
        panels = {_BY_LEAD[name]: by_lead for name, by_lead in ranges.items()}
        picture = draw_lead_ranges(panels, "By lead: median, 25% to 75%, 1% to 99% of the records")
        pictures.append(_picture(picture, "Ranges by lead of the measures in the tables above"))
    if noise := _panels(counts, _NOISE):
        picture = draw_histograms(noise, "Baseline wander and hum, worst lead of each record")
        pictures.append(_picture(picture, "Histograms of baseline wander and hum; the first table has what is beyond"))
        tables.append(_quantile_table("Wander and hum, worst lead", noise))
    where = "Measured as the source has the records, before filter and resampling, on the stretch that was taken."
    if stored := counts.records - counts.from_source:
        where += (
            f" Of {stored:,} records only the stored signals were there to measure: prepare them again to know more."
        )
    if highpass_hz is not None:
        where += f" What is stored is filtered above {highpass_hz:g} Hz."
    return Section("Signals", f"{where}\n\n{_SIGNALS_TEXT}", tables, pictures)


def leads_section(counts: QualityCounts) -> Section:
    """Whether leads fit together, and likely mistakes."""
    tables, pictures = [], []
    if counts.suspects:
        rows = [
            (
                suspect_words(name),
                "patient" if is_electrodes(name) else "file",
                count,
                percent(count, counts.records),
                ", ".join(counts.examples.get(name, ())),
            )
            for name, count in counts.suspects.most_common(_MOST_ROWS)
        ]
        tables.append(Table("Likely mistakes", ("", "made at the", "records", "share", "for example"), rows))
    if panels := _panels(counts, _ORDER):
        tables.append(_quantile_table("What is left over", panels))
        picture = draw_histograms(panels, "How far limb leads are from fitting together")
        pictures.append(_picture(picture, "Histograms of what is left over, as in the table"))
    told = f"{counts.measured['limb leads']:,} of {counts.records:,} records have six limb leads of their own."
    return Section("Leads", f"{told} {_LEADS_TEXT}", tables, pictures)


def _bounds_table(counts: QualityCounts) -> Table:
    rows = [
        (
            bound.words,
            counts.flagged[name],
            percent(counts.flagged[name], counts.measured[name]),
            ", ".join(counts.examples.get(name, ())),
        )
        for name, bound in BOUNDS.items()
        if counts.measured[name]
    ]
    return Table("Records with", ("", "records", "share", "for example"), rows)


def _panels(counts: QualityCounts, labels: dict[str, str]) -> list[Histogram]:
    bounds = {bound.column: bound.value for bound in BOUNDS.values()} | {"limb_residual": LIMB_BOUND}
    return [
        Histogram(label, counts.distributions[name], EDGES[name], bounds.get(name))
        for name, label in labels.items()
        if counts.distributions[name].any()
    ]


def _quantile_table(caption: str, panels: list[Histogram]) -> Table:
    rows = [(panel.label, *map(short, quantiles(panel.counts, panel.edges, _SHARES))) for panel in panels]
    return Table(caption, ("", *map(_share_name, _SHARES)), rows)


def _share_name(share: float) -> str:
    return "median" if share == 0.5 else f"{share:.0%}"


def _picture(png: bytes, alt: str) -> Picture:
    return Picture(palette_png(png), alt)
