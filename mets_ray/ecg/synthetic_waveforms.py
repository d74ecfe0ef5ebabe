"""The waveforms of made-up ECGs: a moving dipole seen by nine electrodes.

The heart is one dipole whose three Frank components are sums of Gaussian lobes, one or more for each wave (McSharry et
al., IEEE Trans Biomed Eng 50(3), 2003, doi:10.1109/TBME.2003.808805; as a 3-D dipole: Sameni et al., EURASIP J Adv
Signal Process 2007, 43407, doi:10.1155/2007/43407). Dower's coefficients turn it into I, II and V1-V6 (Dower, Machado &
Osborne, Clin Cardiol 3, 1980, doi:10.1002/clc.1980.3.2.87); noise is added at the electrodes, and the other four leads
are derived last, so that Einthoven's and Goldberger's relations hold in every sample. It resembles ECGs well enough to
find faults in a pipeline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.synthetic_patients import SyntheticRecord
from mets_ray.errors import ConfigError

# Rows I, II, V1-V6; columns Frank's X (to the left), Y (to the feet), Z (to the back). Doi in the module's docstring.
DOWER: Float[np.ndarray, "lead=8 axis=3"] = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# Electrodes RA, LA, LL, C1-C6 to I, II, V1-V6: a chest lead is measured against the mean of the limbs (Wilson).
_ELECTRODES: Float[np.ndarray, "lead=8 electrode=9"] = np.zeros((8, 9))
_ELECTRODES[0, :3] = -1, 1, 0
_ELECTRODES[1, :3] = -1, 0, 1
_ELECTRODES[2:, :3] = -1 / 3
_ELECTRODES[2:, 3:] = np.eye(6)

# Each purpose has random numbers of its own, so that drawing more for one never changes another; 0 and 1 are those of
# `synthetic_patients`.
_TRAITS, _SHAPE, _BEATS, _SIZES, _NOISE, _FIBRILLATION = range(2, 8)
_BEFORE_S, _AFTER_S = 0.42, 0.78  # what one beat can reach before and after its R peak


@dataclass(frozen=True)
class _Traits:
    """What a patient keeps from one ECG to the next."""

    rotation: Float[np.ndarray, "axis axis"]
    voltage: float
    t_wave: float
    p_wave: float
    qrs_width: float  # 1 is average
    qtc_s: float
    pr_normal: float  # 0 to 1 within the normal range
    ectopic_origin: int


@dataclass(frozen=True)
class _Lobes:
    """Gaussian lobes of one beat: centre from the R peak, a width before and one after the centre, a dipole (mV)."""

    centre_s: Float[np.ndarray, "lobe"]
    rise_s: Float[np.ndarray, "lobe"]
    fall_s: Float[np.ndarray, "lobe"]
    dipole: Float[np.ndarray, "lobe axis=3"]


def render(record: SyntheticRecord, *, sampling_rate_hz: int | float = 100.0, duration_s: int | float = 10.0) -> Ecg:
    """The 12-lead ECG of `record`: [12, round(duration_s * sampling_rate_hz)] in mV, leads in the order of `LEADS`.

    A pure function; the rate only decides how densely the same curve is sampled (noise included, up to half the rate).
    III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2 hold to rounding.
    Raises ConfigError when rate or duration is not positive and finite, or together they are less than one sample.
    """
    if not (0 < sampling_rate_hz < math.inf and 0 < duration_s < math.inf and sampling_rate_hz * duration_s >= 1):
        raise ConfigError(
            f"`sampling_rate_hz` is {sampling_rate_hz} and `duration_s` is {duration_s}",
            hint="use numbers above 0, for example 100 and 10",
        )
    sampling_rate_hz, duration_s = float(sampling_rate_hz), float(duration_s)
    num_samples = round(sampling_rate_hz * duration_s)
    traits = _draw_traits(record)
    rng = np.random.default_rng((record.seed, _SHAPE, record.index))
    # Chest electrodes never sit twice in the same place.
    field = DOWER + np.concatenate([np.zeros((2, 3)), rng.normal(0, 0.05, (6, 3))])
    beat = _beat(record, traits, field, rng)

    times, ectopic_times = _beat_times(record, duration_s)
    sizes_rng = np.random.default_rng((record.seed, _SIZES, record.index))
    heart = np.zeros((3, num_samples))
    _add_beats(heart, beat, times, sampling_rate_hz, sizes_rng)
    if len(ectopic_times):
        _add_beats(heart, _ectopic_beat(traits, rng), ectopic_times, sampling_rate_hz, sizes_rng)
    if "AFIB" in record.labels:
        heart += _fibrillation(record, num_samples, sampling_rate_hz)

    heart -= heart.mean(axis=1, keepdims=True)  # an electrocardiograph's amplifier passes no constant voltage
    independent = field @ heart + _ELECTRODES @ _electrode_noise(record, num_samples, sampling_rate_hz)
    return Ecg(_twelve_leads(independent), LEADS, sampling_rate_hz)


def ectopic_beats_s(record: SyntheticRecord, *, duration_s: int | float = 10.0) -> list[float]:
    """When the premature ventricular complexes of `render(record, duration_s=duration_s)` have their R peaks."""
    _, ectopic = _beat_times(record, float(duration_s))
    return [float(at_s) for at_s in ectopic if 0 <= at_s < duration_s]


def _twelve_leads(independent: Float[np.ndarray, "lead=8 sample"]) -> Float[np.ndarray, "lead=12 sample"]:
    """I, II, V1-V6 to all twelve (Einthoven 1912, Goldberger 1942)."""
    one, two = independent[:2]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, independent[2:]])


def _draw_traits(record: SyntheticRecord) -> _Traits:
    rng = np.random.default_rng((record.seed, _TRAITS, record.patient_number))
    frontal, horizontal, sagittal = np.deg2rad(np.clip(rng.normal(0, (14, 10, 6)), (-28, -20, -12), (28, 20, 12)))
    return _Traits(
        rotation=_turn(0, 1, frontal) @ _turn(2, 0, horizontal) @ _turn(1, 2, sagittal),
        voltage=float(np.exp(rng.normal(0.0 if record.sex == "male" else -0.08, 0.16))),
        t_wave=float(np.exp(np.clip(rng.normal(0, 0.22), -0.45, 0.35))),
        p_wave=float(np.exp(rng.normal(0, 0.18))),
        qrs_width=float(np.clip(rng.normal(1, 0.07), 0.86, 1.14)),
        qtc_s=float(np.clip(rng.normal(0.405 if record.sex == "male" else 0.415, 0.015), 0.37, 0.45)),
        pr_normal=float(rng.random()),
        ectopic_origin=int(rng.integers(3)),
    )


def _turn(first: int, second: int, angle: float) -> Float[np.ndarray, "axis=3 axis=3"]:
    turn = np.eye(3)
    turn[[first, second], [first, second]] = math.cos(angle)
    turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
    return turn


def _lobes(rows: Sequence[tuple[float, ...]]) -> _Lobes:
    """Rows of centre, rise, fall (s) and x, y, z (mV)."""
    table = np.array(rows)
    return _Lobes(table[:, 0], table[:, 1], table[:, 2], table[:, 3:])


def _joined(parts: Sequence[_Lobes]) -> _Lobes:
    return _Lobes(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("centre_s", "rise_s", "fall_s", "dipole")
        )
    )


def _beat(
    record: SyntheticRecord, traits: _Traits, field: Float[np.ndarray, "lead=8 axis=3"], rng: np.random.Generator
) -> _Lobes:
    """P, QRS, ST and T of the record's usual beat, at its mean rate."""
    labels = set(record.labels)
    qrs, qrs_end_s = _qrs(labels, traits, rng)
    qrs_scale, t_scale = _voltage_scales(
        labels, traits, field @ _curve(qrs, np.arange(-0.1, 0.16, 0.002)[None])[0], rng
    )
    st, t = _repolarisation(labels, rng)
    # The heart's position turns T, but an injury current points at the injured wall; strain and low voltage scale ST.
    t = traits.rotation @ t * traits.t_wave * t_scale
    st = st * (t_scale if labels & {"LVOLT", "LVH", "CLBBB"} else 1.0)

    stretch = math.sqrt(60 / record.heart_rate_per_min)  # Bazett: QT goes with the root of the RR interval
    rise_s, fall_s = 0.058 * max(stretch, 0.75), 0.036 * max(stretch, 0.80)
    t_end_s = traits.qtc_s * stretch + max(0.0, qrs_end_s - 0.05) - 0.045  # a late end of QRS delays T
    t_peak_s = t_end_s - 2 * fall_s
    st_start_s = qrs_end_s + 0.03
    st_late_s = st_start_s + 0.55 * (t_peak_s - st_start_s)
    parts = [
        replace(qrs, dipole=qrs_scale * qrs.dipole),
        _lobes(
            [
                (st_start_s, 0.020, 0.045, *st),
                (st_late_s, 0.045, 0.045, *(0.75 * st)),
                (t_peak_s, rise_s, fall_s, *t),
            ]
        ),
    ]
    if "AFIB" not in labels:
        parts.append(_p_wave(record, traits, qrs_onset_s=float(np.min(qrs.centre_s - 2.1 * qrs.rise_s)), rng=rng))
    return _joined(parts)


def _p_wave(record: SyntheticRecord, traits: _Traits, *, qrs_onset_s: float, rng: np.random.Generator) -> _Lobes:
    """Right atrium, then left; its onset lies one PR interval before that of QRS."""
    if "1AVB" in record.labels:
        pr_s = rng.uniform(0.225, 0.30)
    else:
        longest_s = 0.18 if record.heart_rate_per_min < 100 else 0.15
        pr_s = 0.125 + traits.pr_normal * (longest_s - 0.125)
    onset_s = qrs_onset_s - pr_s
    size = traits.p_wave * (0.6 if "LVOLT" in record.labels else 1.0)
    return _lobes(
        [
            (onset_s + 0.034, 0.016, 0.016, 0.05 * size, 0.095 * size, -0.045 * size),
            (onset_s + 0.066, 0.018, 0.018, 0.06 * size, 0.06 * size, 0.025 * size),
        ]
    )


def _qrs(labels: set[str], traits: _Traits, rng: np.random.Generator) -> tuple[_Lobes, float]:
    """Lobes and the end of QRS (s). Time 0 is the R peak, in left bundle branch block the first of the two."""
    septal, apical, basal = (-0.15, 0.0, -0.19), (1.1, 0.8, 0.2), (-0.25, -0.12, 0.7)
    width, ends_s = traits.qrs_width, 0.098
    vary = 1 + rng.normal(0, 0.08, 3)
    lobes: list[tuple[float, ...]]  # centre, width (s), x, y, z
    if "CLBBB" in labels:  # the septum from right to left, then slowly the free wall: notched, no q laterally
        lobes = [
            (-0.026, 0.012, 0.30, 0.20, 0.05),
            (0.000, 0.013, 0.82, 0.25, 0.65),
            (0.029, 0.014, 0.42 * vary[1], 0.10, 1.00),
            (0.060, 0.0155, 0.88 * vary[0], 0.22, 0.80),
        ]
    elif "CRBBB" in labels:  # as normal, then the right ventricle late, slow, to the right and front
        lobes = [
            (-0.024, 0.0085, *septal),
            (0.000, 0.0125, *apical),
            (0.024, 0.0120, *(0.6 * axis for axis in basal)),
            (0.064, 0.0185, -0.55 * vary[0], -0.05, -0.70 * vary[1]),
        ]
    else:
        ends_s = 0.050
        if "LVH" in labels:
            apical = (1.15, 0.45, 0.55)
            width *= 1.1
        if "STE_ANT" in labels:  # the front wall no longer contributes: small r in V1-V3
            septal = (-0.10, 0.0, -0.05)
        if "STE_INF" in labels:  # neither does the lower wall: small q in III and aVF
            septal = (-0.13, -0.14, -0.17)
        lobes = [
            (-0.024, 0.0085, *septal),
            (0.000, 0.0125, *apical),
            (0.024, 0.0120, *(axis * vary[0] for axis in basal)),
        ]
    qrs = _lobes([(width * at, width * sigma, width * sigma, *dipole) for at, sigma, *dipole in lobes])
    return replace(qrs, dipole=qrs.dipole @ traits.rotation.T), width * ends_s


def _voltage_scales(
    labels: set[str], traits: _Traits, qrs_mv: Float[np.ndarray, "lead=8 sample"], rng: np.random.Generator
) -> tuple[float, float]:
    """Factors for QRS and for T that make the voltage criteria true (or, without LVH and LVOLT, untrue).

    LVH: SV1 + RV5 > 3.5 mV (Sokolow & Lyon, Am Heart J 37, 1949). LVOLT: below 0.5 mV from peak to peak in limb leads.
    """
    leads = _twelve_leads(qrs_mv)
    sokolow_mv = float(leads[LEADS.index("V5")].max() - leads[LEADS.index("V1")].min())
    limb_mv = float(np.ptp(leads[:6], axis=1).max())
    if "LVH" in labels:
        scale = rng.uniform(3.9, 5.2) / sokolow_mv
        return scale, min(scale, 1.7)
    if "LVOLT" in labels:
        scale = rng.uniform(0.24, 0.38) / limb_mv
        return scale, 1.1 * scale
    scale = min(max(traits.voltage, 0.85 / limb_mv), 3.0 / sokolow_mv)
    return scale, math.sqrt(scale)


def _repolarisation(
    labels: set[str], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "axis=3"], Float[np.ndarray, "axis=3"]]:
    """Dipoles (mV) of the ST segment and of T."""
    st, t = np.array([0.012, 0.006, -0.012]), np.array([0.36, 0.22, -0.14])
    if "CLBBB" in labels:  # discordant: against the main QRS
        st, t = np.array([-0.09, -0.03, -0.12]), np.array([-0.30, -0.08, -0.30])
    elif "LVH" in labels:  # strain: ST and T away from the left wall
        st, t = np.array([-0.11, -0.01, -0.07]), np.array([-0.26, 0.0, -0.22])
    elif "CRBBB" in labels:
        t = np.array([0.34, 0.20, 0.16])
    if "STE_ANT" in labels:
        size = rng.uniform(0.9, 1.6)
        st = st + size * np.array([0.07, -0.01, -0.22])
        t = np.array([0.36, 0.18, -0.14 - 0.20 * size])
    if "STE_INF" in labels:
        size = rng.uniform(0.9, 1.5)
        st = st + size * np.array([-0.02, 0.25, 0.04])
        t = t + np.array([-0.06, 0.12 + 0.08 * size, 0.04])
    return st * (1 + rng.normal(0, 0.1)), t * (1 + rng.normal(0, 0.12, 3))


def _ectopic_beat(traits: _Traits, rng: np.random.Generator) -> _Lobes:
    """A ventricular extrasystole: no P, slow large QRS from one place to the other wall, T against it."""
    # From the right outflow tract (as LBBB, axis down), the left ventricle's apex (as RBBB, axis up), its lower base.
    main = np.array([(0.45, 1.15, 0.90), (-0.70, -0.95, -0.80), (0.85, -1.00, -0.55)][traits.ectopic_origin])
    main = main * np.clip(traits.voltage, 0.8, 1.2) * rng.uniform(1.0, 1.25)
    side = np.cross(main, (0.3, 0.2, 0.5))
    return _lobes(
        [
            (-0.028, 0.018, 0.020, *(0.45 * main + 0.4 * side)),
            (0.015, 0.022, 0.024, *(0.95 * main)),
            (0.062, 0.022, 0.020, *(0.45 * main - 0.5 * side)),
            (0.140, 0.030, 0.060, *(-0.12 * main)),
            (0.290, 0.065, 0.045, *(-0.42 * main)),
        ]
    )


def _beat_times(
    record: SyntheticRecord, duration_s: float
) -> tuple[Float[np.ndarray, "beat"], Float[np.ndarray, "ectopic_beat"]]:
    """R peaks (s) of usual and of ectopic beats, from before the start to after the end."""
    rng = np.random.default_rng((record.seed, _BEATS, record.index))
    mean_rr_s = 60 / record.heart_rate_per_min
    count = math.ceil((duration_s + 2) / mean_rr_s * 1.3) + 4
    start_s, phase = -rng.uniform(0.3, 1.0) * mean_rr_s - 0.3, rng.uniform(0, 2 * math.pi)
    if "AFIB" in record.labels:
        spread = rng.uniform(0.18, 0.28)
        rr_s = np.maximum(mean_rr_s * np.exp(rng.normal(-(spread**2) / 2, spread, count)), 0.30)
        return start_s + np.cumsum(rr_s), np.empty(0)

    # The sinus node follows breathing (about 15 a minute), less so when fast; the rest is small and random.
    arrhythmia = rng.uniform(0.008, 0.035) * min(1.0, mean_rr_s)
    breathing = np.sin(2 * math.pi * 0.25 * mean_rr_s * np.arange(count) + phase)
    times = start_s + np.cumsum(mean_rr_s * (1 + arrhythmia * breathing + rng.normal(0, 0.006, count)))
    if "PVC" not in record.labels:
        return times, np.empty(0)

    chosen = np.searchsorted(times, 1.2) + int(rng.integers(0, 3)) + np.cumsum([0, *rng.integers(3, 8, count)])
    chosen = chosen[chosen < count - 1]
    coupling = rng.uniform(0.55, 0.68)
    ectopic = times[chosen - 1] + mean_rr_s * (coupling + rng.normal(0, 0.01, len(chosen)))
    # The sinus beat that falls due meets a refractory ventricle; the next comes on time: a full compensatory pause.
    return np.delete(times, chosen), ectopic


def _curve(lobes: _Lobes, since_peak_s: Float[np.ndarray, "beat sample"]) -> Float[np.ndarray, "beat axis=3 sample"]:
    offset = since_peak_s[:, None, :] - lobes.centre_s[:, None]
    width = np.where(offset < 0, lobes.rise_s[:, None], lobes.fall_s[:, None])
    curve: Float[np.ndarray, "beat axis=3 sample"] = lobes.dipole.T @ np.exp(-0.5 * (offset / width) ** 2)
    return curve


def _add_beats(
    heart: Float[np.ndarray, "axis=3 sample"],
    lobes: _Lobes,
    times: Float[np.ndarray, "beat"],
    sampling_rate_hz: float,
    rng: np.random.Generator,
) -> None:
    """Add a beat at each of `times`, each of a slightly different size, as breathing makes them."""
    num_samples = heart.shape[1]
    sizes = 1 + rng.normal(0, 0.025, len(times))
    near = (times > -_AFTER_S) & (times < num_samples / sampling_rate_hz + _BEFORE_S)
    times, sizes = times[near], sizes[near]
    window = np.arange(math.ceil((_BEFORE_S + _AFTER_S) * sampling_rate_hz))
    index = np.ceil((times - _BEFORE_S) * sampling_rate_hz).astype(int)[:, None] + window
    curves = _curve(lobes, index / sampling_rate_hz - times[:, None]) * sizes[:, None, None]
    for positions, curve in zip(index, curves, strict=True):
        inside = (positions >= 0) & (positions < num_samples)
        heart[:, positions[inside]] += curve[:, inside]


def _coloured_noise(
    density: Float[np.ndarray, "channel bin"], num_samples: int, rng: np.random.Generator
) -> Float[np.ndarray, "channel sample"]:
    """Gaussian noise, bin k of which (frequency k / duration) has the standard deviation `density[:, k]`.

    A Fourier series, not filtered white noise: a lower sampling rate then sees the same noise without its upper bins.
    """
    channels, bins = density.shape
    drawn = rng.standard_normal((bins, channels, 2))  # bins first: fewer bins are a prefix of more
    spectrum = density * (drawn[..., 0] + 1j * drawn[..., 1]).T * num_samples / 2
    noise: Float[np.ndarray, "channel sample"] = np.fft.irfft(spectrum, n=num_samples, axis=1)
    return noise


def _frequencies_hz(num_samples: int, sampling_rate_hz: float, highest_hz: float) -> Float[np.ndarray, "bin"]:
    duration_s = num_samples / sampling_rate_hz
    bins = min((num_samples + 1) // 2, int(highest_hz * duration_s) + 1)
    return np.arange(bins) / duration_s


def _unit_power(shape: Float[np.ndarray, "bin"]) -> Float[np.ndarray, "bin"]:
    return shape / math.sqrt(max(float(np.sum(shape**2)), 1e-12))


def _electrode_noise(
    record: SyntheticRecord, num_samples: int, sampling_rate_hz: float
) -> Float[np.ndarray, "electrode=9 sample"]:
    """Baseline wander (breathing, sweat), muscle noise and mains hum in mV, of another size in each record."""
    rng = np.random.default_rng((record.seed, _NOISE, record.index))
    frequency = _frequencies_hz(num_samples, sampling_rate_hz, 150.0)
    quiet = 0.5 if "LVOLT" in record.labels else 1.0  # else noise alone would lift voltages over the criterion
    # Root mean squares at each electrode; muscle noise as over the whole band up to 150 Hz.
    wander_mv = 0.035 * np.exp(rng.normal(0, 0.5)) * rng.uniform(0.5, 1.3, (9, 1))
    muscle_mv = 0.012 * quiet * np.exp(rng.normal(0, 0.45)) * rng.uniform(0.6, 1.4, (9, 1))
    hum_mv = 0.004 * quiet * np.exp(rng.normal(0, 0.6)) * rng.uniform(0.3, 1.0, (9, 1))
    mains_hz = 50.0 if rng.random() < 0.5 else 60.0

    wander = _unit_power(np.where(frequency > 0, np.exp(-(((frequency - 0.2) / 0.17) ** 2)), 0))
    bin_s = sampling_rate_hz / num_samples
    muscle = np.where(frequency > 0, 1.0, 0.0) * math.sqrt(bin_s / 150.0)
    hum = np.abs(frequency - mains_hz) < bin_s / 2
    density = np.sqrt((wander_mv * wander) ** 2 + (muscle_mv * muscle) ** 2 + (hum_mv * hum) ** 2)
    return _coloured_noise(density, num_samples, rng)


def _fibrillation(
    record: SyntheticRecord, num_samples: int, sampling_rate_hz: float
) -> Float[np.ndarray, "axis=3 sample"]:
    """f waves: 4.5 to 8 a second, waxing and waning, largest in V1."""
    rng = np.random.default_rng((record.seed, _FIBRILLATION, record.index))
    frequency = _frequencies_hz(num_samples, sampling_rate_hz, 20.0)
    middle_hz, spread_hz = rng.uniform(4.8, 7.8), rng.uniform(0.6, 1.3)
    shape = _unit_power(np.exp(-0.5 * ((frequency - middle_hz) / spread_hz) ** 2))
    size = rng.uniform(0.7, 1.4) * (0.6 if "LVOLT" in record.labels else 1.0)
    return _coloured_noise(size * np.array([[0.014], [0.024], [0.045]]) * shape, num_samples, rng)
