"""The picture of an ECG: sizes and deflections, measured in the pixels of the PNG."""

import struct
import subprocess
import sys

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.pictures.ecg import ECG_HEIGHT_MM, ECG_WIDTH_MM, PIXELS_PER_MM, Shading, draw_ecg
from mets_ray.pictures.figure import palette_png
from tests.support.pixels import picture

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


PRINTED = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))


# In pixels: side margin and 10 mm of calibration are left of the traces, header and 30 mm above the first base line.
START = 15 * PIXELS_PER_MM


BASE = [(15 + 30 + 30 * row) * PIXELS_PER_MM for row in range(4)]


SECOND = 25 * PIXELS_PER_MM


def ink(png: bytes) -> np.ndarray:
    """[row, column], True where the picture is nearly black: traces and letters, not the grid."""
    return picture(png).mean(axis=-1) < 0.4


def height(dark: np.ndarray, column: int, base: int) -> float:
    """Millimetres of the trace above a base line, at a pixel column."""
    rows = np.flatnonzero(dark[base - 14 * PIXELS_PER_MM : base + 14 * PIXELS_PER_MM, column])
    assert len(rows) > 0
    assert np.ptp(rows) < PIXELS_PER_MM / 2, "not one horizontal line"
    return float(14 - (rows.mean() + 0.5) / PIXELS_PER_MM)


def square_wave(
    sampling_rate_hz: int, *, microvolt: int = 1000, begin_s: float = 1.0, end_s: float = 2.0
) -> np.ndarray:
    time_s = np.arange(10 * sampling_rate_hz) / sampling_rate_hz
    return np.where((time_s >= begin_s) & (time_s < end_s), microvolt, 0).astype(np.int16)


@pytest.mark.parametrize("sampling_rate_hz", [100, 500])
def test_one_millivolt_is_ten_millimetres_and_one_second_twenty_five(sampling_rate_hz):
    dark = ink(draw_ecg(square_wave(sampling_rate_hz)[None], ("I",), sampling_rate_hz, "square wave"))
    for base in (BASE[0], BASE[3]):  # lead I in its place, and as the strip
        assert height(dark, START + int(0.8 * SECOND), base) == pytest.approx(0.0, abs=0.15)
        assert height(dark, START + int(1.7 * SECOND), base) == pytest.approx(10.0, abs=0.15)
        edges = np.flatnonzero(dark[base - 9 * PIXELS_PER_MM : base - PIXELS_PER_MM, START:].mean(axis=0) > 0.9)
        rise, fall = edges[edges < 1.5 * SECOND].mean(), edges[edges > 1.5 * SECOND].mean()
        assert (fall - rise) / PIXELS_PER_MM == pytest.approx(25.0, abs=0.2)
        # A column of samples before its step: the line between two samples leans by one sampling interval.
        assert rise / PIXELS_PER_MM == pytest.approx(25.0, abs=25.0 / sampling_rate_hz + 0.15)


def test_calibration_pulse_is_one_millivolt_for_a_fifth_of_a_second():
    dark = ink(draw_ecg(np.zeros((1, 1000), np.int16), ("V6",), 100, "flat"))
    for base in BASE:
        pulse = dark[base - 9 * PIXELS_PER_MM : base - PIXELS_PER_MM, 5 * PIXELS_PER_MM : START]
        edges = np.flatnonzero(pulse.mean(axis=0) > 0.9)
        assert np.ptp(edges) / PIXELS_PER_MM == pytest.approx(5.0, abs=0.3)
        assert height(dark, 5 * PIXELS_PER_MM + int(edges.mean()), base) == pytest.approx(10.0, abs=0.15)


def test_grid_and_size_are_millimetres():
    png = draw_ecg(np.zeros((1, 1000), np.int16), ("V6",), 100, "")
    image = picture(png)
    assert image.shape[:2] == (ECG_HEIGHT_MM * PIXELS_PER_MM, ECG_WIDTH_MM * PIXELS_PER_MM)
    place = png.index(b"pHYs") + 4
    assert struct.unpack(">II", png[place : place + 8]) == (1000 * PIXELS_PER_MM,) * 2  # pixels in a metre: prints true
    # A column of pixels between two fine lines, right of the traces: there horizontal lines alone show.
    column = image[:, int((ECG_WIDTH_MM - 5 - 2.5) * PIXELS_PER_MM), 1]
    paper = column[15 * PIXELS_PER_MM - 2 : -10 * PIXELS_PER_MM + 2]
    lines = np.flatnonzero((paper[1:-1] < paper[:-2]) & (paper[1:-1] <= paper[2:]))
    assert np.median(np.diff(lines)) == PIXELS_PER_MM
    bold = np.flatnonzero(paper < 0.75)
    starts = bold[np.flatnonzero(np.diff(bold, prepend=-9) > 1)]
    assert len(starts) == 135 // 5 + 1
    assert set(np.diff(starts)) <= {5 * PIXELS_PER_MM - 1, 5 * PIXELS_PER_MM, 5 * PIXELS_PER_MM + 1}
    assert starts[-1] - starts[0] == pytest.approx(135 * PIXELS_PER_MM, abs=1)


def test_every_lead_stands_in_its_place_whatever_its_order():
    # Lead number n is lifted by 0.1 n mV for half a second in the middle of its own 2.5 s, and low elsewhere.
    order = np.random.default_rng(0).permutation(12)
    place = {name: (row, column) for row, names in enumerate(PRINTED) for column, name in enumerate(names)}
    signal = np.stack(
        [
            square_wave(
                100,
                microvolt=100 * (number + 1),
                begin_s=2.5 * place[LEADS[number]][1] + 1.0,
                end_s=2.5 * place[LEADS[number]][1] + 1.5,
            )
            for number in order
        ]
    )
    dark = ink(draw_ecg(signal, [LEADS[number].upper() for number in order], 100, "twelve"))
    for name, (row, column) in place.items():
        expected = (LEADS.index(name) + 1) * 1.0
        x = START + int((2.5 * column + 1.25) * SECOND)
        assert height(dark, x, BASE[row]) == pytest.approx(expected, abs=0.2), name
    assert height(dark, START + int(1.25 * SECOND), BASE[3]) == pytest.approx(2.0, abs=0.2)  # lead II as the strip


def test_shading_lies_under_its_lead_at_its_time():
    drops = {name: np.zeros(20) for name in LEADS}
    drops["V1"][12], drops["V1"][13], drops["V2"][13] = (
        0.4,
        -0.4,
        0.01,
    )  # from 6 s and from 6.5 s; too faint to be drawn
    drops["II"][2] = 0.2  # from 1 s: in its place, and in the strip
    flat = np.zeros((12, 1000), np.int16)
    plain = picture(draw_ecg(flat, LEADS, 100, "", pixels_per_mm=4))
    shaded = picture(draw_ecg(flat, LEADS, 100, "", pixels_per_mm=4, shading=Shading(drops, 0.5)))
    second, start, base = 100, 60, [value // 2 for value in BASE]
    found = np.abs(shaded - plain).sum(axis=-1) > 0.1
    assert found[-40:].any(), "the largest value stands below"
    found[-40:] = False
    band = lambda row, from_s: (  # noqa: E731
        slice(base[row] - 11 * 4, base[row] + 11 * 4),
        slice(start + int(from_s * second) + 2, start + int((from_s + 0.5) * second) - 2),
    )
    expected = np.zeros_like(found)
    for row, from_s in ((0, 6.0), (0, 6.5), (1, 1.0), (3, 1.0)):
        assert found[band(row, from_s)].mean() > 0.95
        wide = band(row, from_s)
        expected[wide[0].start - 6 : wide[0].stop + 6, wide[1].start - 4 : wide[1].stop + 4] = True
    assert not (found & ~expected).any()
    place = base[0] - 8 * 4
    blue, orange = (shaded[place, start + int(at_s * second)] for at_s in (6.26, 6.74))
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    ink_before, ink_after = (image.mean(axis=-1)[base[3], start + int(1.3 * second)] for image in (plain, shaded))
    assert ink_after == pytest.approx(ink_before, abs=0.1), "the trace lies above it"


def test_grid_does_not_cross_lead_names():
    dark = ink(draw_ecg(np.zeros((12, 1000), np.int16), LEADS, 100, ""))
    place = dark[BASE[0] - 14 * PIXELS_PER_MM : BASE[0] - 9 * PIXELS_PER_MM, START : START + 4 * PIXELS_PER_MM]
    stem = np.flatnonzero(place[:, place.sum(axis=0).argmax()])  # of the letter I
    assert len(stem) > 1.5 * PIXELS_PER_MM
    assert (np.diff(stem) == 1).all()


def test_offset_of_a_lead_does_not_move_it():
    shifted = square_wave(100) + np.int16(700)
    assert draw_ecg(shifted[None], ("I",), 100, "") == draw_ecg(square_wave(100)[None], ("I",), 100, "")


def test_short_and_long_records():
    """What is absent stays empty, without a lead name; what is beyond 10 s is not drawn."""
    dark = ink(draw_ecg(np.zeros((12, 400), np.int16), LEADS, 100, "4 s"))
    rows = slice(BASE[0] - 14 * PIXELS_PER_MM, BASE[0] + 4)
    assert dark[rows, START + int(3.5 * SECOND)].any()
    assert not dark[rows, START + int(4.2 * SECOND) : START + int(4.9 * SECOND)].any()
    assert not dark[rows, START + int(7.6 * SECOND) : START + int(9.9 * SECOND)].any()
    dark = ink(draw_ecg(np.zeros((12, 3000), np.int16), LEADS, 100, "30 s"))
    assert dark[BASE[3] - 4 : BASE[3] + 4, START + int(9.9 * SECOND)].any()
    assert not dark[BASE[3] - 4 : BASE[3] + 4, START + int(10.1 * SECOND) :].any()


@pytest.mark.parametrize(
    "title", ["W" * 400, "sinusrhythmus lagetyp normal " * 20, "MMMM WWWW " * 30, r"a $\frac{$ b", "", "ä" * 110]
)
def test_title_is_neither_clipped_nor_over_the_grid(title):
    dark = ink(draw_ecg(np.zeros((1, 1000), np.int16), ("I",), 100, title))
    header = dark[: 15 * PIXELS_PER_MM - 2]
    assert header.any() == bool(title)
    assert not header[:4].any()
    assert not header[:, : 5 * PIXELS_PER_MM - 2].any()
    assert not header[:, -5 * PIXELS_PER_MM + 2 :].any()


def test_ecg_faults_are_named():
    signal = np.zeros((2, 100), np.int16)
    with pytest.raises(MetsError, match="1 lead names for a signal of 2 leads"):
        draw_ecg(signal, ("I",), 100, "")
    with pytest.raises(MetsError, match="cannot be drawn"):
        draw_ecg(signal, ("I", "II"), 0, "")
    with pytest.raises(MetsError, match="0 samples"):
        draw_ecg(signal[:, :0], ("I", "II"), 100, "")


def test_no_global_state_of_matplotlib():
    """Importing loads no matplotlib, and drawing no pyplot."""
    code = """
import sys, numpy as np
from mets_ray.pictures import classes, curves, ecg, embedding_map, training
assert "matplotlib" not in sys.modules
ecg.draw_ecg(np.zeros((1, 100), np.int16), ("I",), 100, "")
training.draw_training([{"epoch": 1, "loss": 1.0, "validation_macro_auroc": 0.5}], 1, "")
classes.draw_confusion(np.eye(2, dtype=int), ("A", "B"), "")
classes.draw_class_bars({"A": (0.5, 0.4, 0.6)}, "")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_few_colours_are_those_of_the_whole_picture():
    signal_uv = np.random.default_rng(0).integers(-900, 900, (12, 1000)).astype(np.int16)
    few = draw_ecg(signal_uv, LEADS, 100, "record 1", pixels_per_mm=4, in_few_colours=True)
    whole = draw_ecg(signal_uv, LEADS, 100, "record 1", pixels_per_mm=4)
    assert few == palette_png(whole)
    assert len(few) < len(whole) / 2
