"""Whether the leads of an ECG are those that their names say: limb leads that fit together, and arms that are not mixed
up.

Two mistakes are told apart. Where two *leads* have each other's name, or one has the wrong sign, the limb leads
contradict each other: III = II − I, aVR = −(I + II)/2, aVL = I − II/2 and aVF = II − I/2 (Einthoven 1913, Goldberger
1942). Where two *electrodes* were exchanged, the limb leads still fit together, but no longer the chest leads: most of
I and II can be computed from V1 to V6, and the exchange that fits them better is named (Kors & van Herpen 2001,
doi:10.1016/S0002-9149(01) 01686-5, do so with other coefficients). Left arm and left leg cannot be told apart in this
way."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")

_RELATIONS = np.array(
    [
        [1, -1, 1, 0, 0, 0],
        [0.5, 0.5, 0, 1, 0, 0],
        [-1, 0.5, 0, 0, 1, 0],
        [0.5, -1, 0, 0, 0, 1],
    ],
)
_EINTHOVEN = np.array([1.0, -1, 1, 0, 0, 0])
_AUGMENTED = np.array([0.0, 0, 0, 1, 1, 1])

LIMB_BOUND = 0.1
"""Above this residual, limb leads contradict each other. Of 1,992 ECGs of PTB-XL none is above 0.01; with any two leads
exchanged, or one inverted, none is below 0.2."""

_LEAST_RESIDUAL_MV = 0.01  # two leads of 5 µV resolution differ by as much for no other reason than rounding

# I and II from V1 to V6 by least squares: 996 ECGs of PTB-XL (every second one of 1,992), 0.5 to 40 Hz, of one
# weight each.
_FROM_CHEST = np.array(
    [[-0.567, 0.212, 0.077, -0.126, 0.155, 0.270], [-0.034, -0.091, 0.116, 0.130, 0.030, 0.398]],
)
# What the electrodes make of I and II: with the arms exchanged, I is −I and II is III = II − I.
ELECTRODES = {
    "RA/LA": np.array([[-1.0, 0.0], [-1.0, 1.0]]),
    "RA/LL": np.array([[1.0, -1.0], [0.0, -1.0]]),
}
_EXCHANGES = {"": np.eye(2), **ELECTRODES}
_ELECTRODE_MARGIN = 0.4
"""By so much must an exchange of electrodes raise the correlation. Of 498 of the other ECGs it names 95% with the arms
exchanged, and with right arm and left leg; of all 1,992 as they are 5."""

CONTRADICTION = "limb leads"

Gram = Float[np.ndarray, "lead lead"]


@dataclass(frozen=True)
class LeadOrder:
    """`einthoven_uv`: RMS of I + III − II; `augmented_uv`: RMS of aVR + aVL + aVF; `limb_residual`: RMS of all four
    relations over that of the limb leads. `suspect`: the likely mistake: `aVL/aVF` for two leads, `-III` for an
    inverted one, `RA/LA` and `RA/LL` for electrodes, `limb leads` for a contradiction that no single mistake explains;
    "" for none. nan and "" where the leads are not there to tell."""

    einthoven_uv: float = math.nan
    augmented_uv: float = math.nan
    limb_residual: float = math.nan
    suspect: str = ""


def lead_order(gram_mv2: Gram, *, has_limb_leads: bool, has_chest_leads: bool) -> LeadOrder:
    """What the mean products of each two of the 12 leads (in the order of `LEADS`, in mV², offsets removed) tell.

    has_limb_leads: all six were recorded, none is computed from others; has_chest_leads: all six were recorded.
    """
    if not has_limb_leads:
        return LeadOrder(suspect=_electrodes(gram_mv2) if has_chest_leads else "")
    limb = gram_mv2[:6, :6]
    residual = _residual(limb)
    suspect = ""
    if residual > LIMB_BOUND and _rms(_RELATIONS, limb) > _LEAST_RESIDUAL_MV:
        suspect = _leads(limb)
    elif has_chest_leads:
        suspect = _electrodes(gram_mv2)
    return LeadOrder(1000 * _rms(_EINTHOVEN, limb), 1000 * _rms(_AUGMENTED, limb), residual, suspect)


def _rms(weights: Float[np.ndarray, "*row lead"], gram: Gram) -> float:
    return math.sqrt(max(0.0, float(((weights @ gram) * weights).sum())))


def _residual(limb: Gram) -> float:
    whole = math.sqrt(max(0.0, float(np.trace(limb))))
    return _rms(_RELATIONS, limb) / whole if whole else math.nan


def _leads(limb: Gram) -> str:
    """The one exchange of two leads, or the one inverted lead, that makes them fit."""
    mistakes = {}
    for first, second in itertools.combinations(range(6), 2):
        order = np.arange(6)
        order[[first, second]] = second, first
        mistakes[f"{_LIMB_LEADS[first]}/{_LIMB_LEADS[second]}"] = _residual(limb[np.ix_(order, order)])
    for lead, name in enumerate(_LIMB_LEADS):
        sign = np.ones(6)
        sign[lead] = -1.0
        mistakes[f"-{name}"] = _residual(limb * np.outer(sign, sign))
    best = min(mistakes, key=mistakes.__getitem__)
    return best if mistakes[best] <= LIMB_BOUND else CONTRADICTION


def _electrodes(gram: Gram) -> str:
    """The exchange of two electrodes after which I and II fit the chest leads much better."""
    measured, chest = gram[:2, :2], gram[6:, 6:]
    shared = gram[:2, 6:] @ _FROM_CHEST.T  # of the measured and the computed I and II
    size = _rms(_FROM_CHEST, chest)
    found = {name: _correlation(exchange, measured, shared, size) for name, exchange in _EXCHANGES.items()}
    as_named = found.pop("")
    best = max(found, key=found.__getitem__)
    return best if found[best] - as_named > _ELECTRODE_MARGIN else ""


def _correlation(
    exchange: Float[np.ndarray, "two two"],
    measured: Float[np.ndarray, "two two"],
    shared: Float[np.ndarray, "two two"],
    size: float,
) -> float:
    scale = _rms(exchange, measured) * size
    return float(np.trace(exchange @ shared)) / scale if scale else 0.0
