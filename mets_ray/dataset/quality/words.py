"""How figures are said to people."""

from mets_ray.ecg.lead_order import CONTRADICTION, ELECTRODES

_ELECTRODES = {"RA/LA": "right and left arm", "RA/LL": "right arm and left leg"}


def percent(part: int, whole: int) -> str:
    """A share; one that is not nothing is not said to be."""
    share = part / whole if whole else 0.0
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def short(value: float) -> str:
    """Two digits; a dash for nan."""
    return "–" if value != value else f"{value:.2g}"


def suspect_words(suspect: str) -> str:
    """What `LeadOrder.suspect` says."""
    if is_electrodes(suspect):
        return f"electrodes of {_ELECTRODES[suspect]} exchanged"
    if suspect == CONTRADICTION:
        return "no single mistake explains it"
    if suspect.startswith("-"):
        return f"lead {suspect[1:]} has the wrong sign"
    return f"leads {suspect.replace('/', ' and ')} have each other's name"


def is_electrodes(suspect: str) -> bool:
    """Whether it is a mistake at the patient, not one of the file."""
    return suspect in ELECTRODES
