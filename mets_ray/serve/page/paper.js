// An ECG on ECG paper, with grid lines every 1 mm and 5 mm. What the service sent is drawn sample by sample; only each
// lead's median is moved onto its baseline.

import { layOut, median, samplesOf } from "./layout.js";

// CSS pixels: on narrower paper, four columns would leave less than 2 pixels per millimetre.
const NARROW_PX = 560;
const FINE_GRID_PX = 1.6;
// Browsers draw nothing on a canvas that is larger than theirs allows; enlarged paper is drawn coarser instead.
const LONGEST_SIDE = 12_000;
const MOST_PIXELS = 24e6;
const CSS_PX_PER_MM = 96 / 25.4;
const PRINTED_RATIO = 4; // canvas pixels for each of CSS: 384 in an inch

/**
 * Draw `ecg` (a response of /v1/ecg), or empty paper for null, on paper that fits `width_px` CSS pixels when `view` does
 * not enlarge it, and is at least `least_px` high. `narrow`: two columns in place of four. `underlays`: functions
 * (context, segments, mm, mm_per_s) that draw on the grid and beneath the traces; `mm` is a millimetre in device pixels.
 * Returns the plan of `layOut` with `mm_px`, a millimetre in CSS pixels; null where there is no room.
 */
export function draw(canvas, ecg, { view, width_px, least_px = 0, narrow = width_px < NARROW_PX, underlays = [] }) {
  if (!(width_px > 0)) return null;
  const plan = layOut(ecg, view, narrow);
  const mm_px = (width_px * view.zoom) / plan.fit_mm;
  const [across_px, up_px] = [Math.max(width_px, plan.width_mm * mm_px), plan.height_mm * mm_px];
  const most = Math.min(LONGEST_SIDE / Math.max(across_px, up_px), Math.sqrt(MOST_PIXELS / (across_px * up_px)));
  const ratio = Math.min(window.devicePixelRatio || 1, most);
  // A whole number of device pixels per 5 mm box keeps every line sharp; the rest of the width is blank paper.
  const mm = Math.max(1, Math.floor(5 * mm_px * ratio)) / 5;
  canvas.width = Math.round(Math.max(width_px * ratio, plan.width_mm * mm));
  canvas.height = Math.round(Math.max(least_px * ratio, plan.height_mm * mm));
  canvas.style.width = `${canvas.width / ratio}px`;
  canvas.style.height = `${canvas.height / ratio}px`;
  paint(canvas, ecg, plan, mm, ratio, underlays);
  return { ...plan, mm_px: mm / ratio };
}

/**
 * Draw `ecg` for the printer in four columns, at its true size where that fits. Returns the plan, with `share`, the size
 * beside the true one.
 */
export function drawForPrint(canvas, ecg, { view, width_mm, height_mm }) {
  const plan = layOut(ecg, view, false);
  const share = Math.min(1, width_mm / plan.width_mm, height_mm / plan.height_mm);
  const mm = CSS_PX_PER_MM * PRINTED_RATIO * share;
  canvas.width = Math.round(plan.width_mm * mm);
  canvas.height = Math.round(plan.height_mm * mm);
  // Chromium rounds the scale of a printed canvas; a whole number of its pixels for each of CSS is kept.
  canvas.style.width = `${canvas.width / PRINTED_RATIO}px`;
  canvas.style.height = `${canvas.height / PRINTED_RATIO}px`;
  paint(canvas, ecg, plan, mm, PRINTED_RATIO, []);
  return { ...plan, share };
}

/** mm: device pixels of a millimetre; ratio: device pixels of a CSS pixel. */
function paint(canvas, ecg, plan, mm, ratio, underlays) {
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const context = canvas.getContext("2d");
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (mm / ratio >= FINE_GRID_PX) grid(context, mm, Math.max(1, Math.round(ratio / 2)), colour("--paper-fine"));
  grid(context, 5 * mm, Math.max(1, Math.round(ratio * 0.75)), colour("--paper-bold"));
  if (ecg) {
    for (const underlay of underlays) {
      context.save();
      underlay(context, plan.segments, mm, plan.speed_mm_s);
      context.restore();
    }
  }
  context.strokeStyle = colour("--trace");
  context.lineJoin = "round";
  context.lineWidth = Math.max(1.15 * ratio, 0.28 * mm);
  if (ecg || !plan.narrow) for (const row of plan.rows) pulse(context, row.base_mm, plan, mm);
  if (!ecg) return;

  for (const segment of plan.segments) trace(context, ecg, segment, plan, mm);
  context.lineWidth = ratio;
  for (const { x_mm, base_mm } of plan.segments) if (x_mm > plan.lead_in_mm) border(context, x_mm * mm, base_mm * mm, mm);
  labels(context, plan, mm, ratio, style.fontFamily, colour);
}

function labels(context, plan, mm, ratio, fontFamily, colour) {
  const size = Math.max(10.5 * ratio, 3.2 * mm);
  context.font = `600 ${size}px ${fontFamily}`;
  context.lineWidth = 3 * ratio;
  context.strokeStyle = colour("--paper");
  context.fillStyle = colour("--paper-text");
  for (const segment of plan.segments) {
    const at = [(segment.x_mm + 1.5) * mm, (segment.base_mm - 10) * mm];
    const later = segment.x_mm === plan.lead_in_mm && segment.from_s > 0;
    const label = later ? `${segment.lead} from ${segment.from_s} s` : segment.lead;
    context.strokeText(label, ...at);
    context.fillText(label, ...at);
  }
}

function grid(context, step, lineWidth, colour) {
  const { width, height } = context.canvas;
  context.fillStyle = colour;
  for (let i = 0; i * step < width; i++) context.fillRect(Math.round(i * step), 0, lineWidth, height);
  for (let i = 0; i * step < height; i++) context.fillRect(0, Math.round(i * step), width, lineWidth);
}

/** Calibration pulse: 1 mV for 200 ms. */
function pulse(context, base_mm, { speed_mm_s, gain_mm_mv }, mm) {
  const base = base_mm * mm;
  const top = base - gain_mm_mv * mm;
  const [from, to] = [3 * mm, (3 + 0.2 * speed_mm_s) * mm];
  context.beginPath();
  context.moveTo(from - mm, base);
  for (const point of [[from, base], [from, top], [to, top], [to, base], [to + mm, base]]) context.lineTo(...point);
  context.stroke();
}

/** Two short marks where one lead ends and the next begins. */
function border(context, x, base, mm) {
  context.beginPath();
  for (const [from, to] of [[-8, -5], [5, 8]]) {
    context.moveTo(x, base + from * mm);
    context.lineTo(x, base + to * mm);
  }
  context.stroke();
}

function trace(context, ecg, segment, { speed_mm_s, gain_mm_mv }, mm) {
  const zero_uv = median(ecg, segment.lead);
  const step = (speed_mm_s * mm) / ecg.sampling_rate_hz;
  context.beginPath();
  samplesOf(ecg, segment).forEach((sample_uv, i) => {
    context.lineTo(segment.x_mm * mm + i * step, segment.base_mm * mm - ((sample_uv - zero_uv) / 1000) * gain_mm_mv * mm);
  });
  context.stroke();
}
