// An ECG on ECG paper: 25 mm/s, 10 mm/mV, grid lines every 1 mm and 5 mm. Nothing is filtered or scaled.

const MM_PER_S = 25;
const MM_PER_MV = 10;
const LIMB = ["I", "II", "III", "aVR", "aVL", "aVF"];
const CHEST = ["V1", "V2", "V3", "V4", "V5", "V6"];
const STRIP = "II";
const LONGEST_S = 10;
const LEAD_IN_MM = 10;
const TAIL_MM = 5;
// Minimum heights; large deflections get more room, up to ROOM_MM more.
const ROW_MM = 30;
const NARROW_ROW_MM = 25;
const HEADROOM_MM = 20;
const BELOW_MM = 15;
const ROOM_MM = 15;
// CSS pixels: on narrower paper, four columns would leave less than 2 pixels per millimetre.
const NARROW_PX = 560;
const FINE_GRID_PX = 1.6;

/**
 * Draw `ecg` (a response of /v1/ecg), or empty paper for null, as wide as the canvas is laid out.
 * `under(context, segments, mm, mm_per_s)` draws below the traces; `mm` is a millimetre in device pixels.
 */
export function draw(canvas, ecg, under = () => {}) {
  const ratio = window.devicePixelRatio || 1;
  const widthPx = canvas.clientWidth;
  if (!widthPx) return null;
  const plan = layOut(ecg, widthPx < NARROW_PX);
  // A whole number of device pixels per 5 mm box keeps every line sharp; the rest of the width is blank paper.
  const width = Math.round(widthPx * ratio);
  const box = Math.max(1, Math.floor(width / (plan.width_mm / 5)));
  const mm = box / 5;
  const height = Math.round(plan.height_mm * mm);
  canvas.width = width;
  canvas.height = height;
  canvas.style.height = `${height / ratio}px`;

  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const context = canvas.getContext("2d");
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, width, height);
  if (mm / ratio >= FINE_GRID_PX) grid(context, mm, Math.max(1, Math.round(ratio / 2)), colour("--paper-fine"));
  grid(context, box, Math.max(1, Math.round(ratio * 0.75)), colour("--paper-bold"));
  if (ecg) under(context, plan.segments, mm, MM_PER_S);
  context.strokeStyle = colour("--trace");
  context.lineJoin = "round";
  context.lineWidth = Math.max(1.15 * ratio, 0.28 * mm);
  if (ecg || !plan.narrow) for (const row of plan.rows) pulse(context, row.base_mm, mm);
  if (!ecg) return plan;

  for (const segment of plan.segments) trace(context, ecg, segment, mm);
  context.lineWidth = ratio;
  for (const { x_mm, base_mm } of plan.segments) if (x_mm > LEAD_IN_MM) border(context, x_mm * mm, base_mm * mm, mm);

  const size = Math.max(10.5 * ratio, 3.2 * mm);
  context.font = `600 ${size}px ${style.fontFamily}`;
  context.lineWidth = 3 * ratio;
  context.strokeStyle = colour("--paper");
  context.fillStyle = colour("--paper-text");
  for (const segment of plan.segments) {
    const at = [(segment.x_mm + 1.5) * mm, (segment.base_mm - 10) * mm];
    const later = segment.x_mm === LEAD_IN_MM && segment.from_s > 0;
    const label = later ? `${segment.lead} from ${segment.from_s} s` : segment.lead;
    context.strokeText(label, ...at);
    context.fillText(label, ...at);
  }
  return plan;
}

/** Layout in millimetres: rows with their baselines, segments {lead, x_mm, base_mm, from_s, to_s}. */
function layOut(ecg, narrow) {
  const shown_s = Math.min(ecg?.duration_s ?? LONGEST_S, LONGEST_S);
  const part_s = shown_s / 4;
  const leads = ecg?.leads ?? [...LIMB, ...CHEST];
  const usual = leads.length === 12 && [...LIMB, ...CHEST].every((lead) => leads.includes(lead));
  const lines = [];
  if (usual && narrow) {
    // Two columns of six leads, and the rhythm strip on two lines.
    LIMB.forEach((lead, row) => lines.push([[lead, 0, part_s], [CHEST[row], part_s, 2 * part_s]]));
    lines.push([[STRIP, 0, 2 * part_s]], [[STRIP, 2 * part_s, 4 * part_s]]);
  } else if (usual) {
    const columns = [LIMB.slice(0, 3), LIMB.slice(3), CHEST.slice(0, 3), CHEST.slice(3)];
    for (let row = 0; row < 3; row++) {
      lines.push(columns.map((column, place) => [column[row], place * part_s, (place + 1) * part_s]));
    }
    lines.push([[STRIP, 0, shown_s]]);
  } else {
    for (const lead of leads) lines.push([[lead, 0, narrow ? shown_s / 2 : shown_s]]);
  }
  const reaches = ecg ? lines.map((line) => line.map((segment) => reach(ecg, segment))) : [];
  const ups = reaches.map((row) => row.map(([up_mm]) => up_mm));
  const downs = reaches.map((row) => row.map(([, down_mm]) => down_mm));
  // A segment can overlap the one below it in its column; a strip can overlap every segment above it.
  const meets = ups.slice(1).flatMap((row, above) => downs[above].map((down_mm, column) => down_mm + (row[column] ?? row[0])));
  const top_mm = room(HEADROOM_MM, (ups[0] ?? []).map((up_mm) => up_mm + 5));
  const row_mm = room(narrow ? NARROW_ROW_MM : ROW_MM, meets);
  const below_mm = room(BELOW_MM, (downs.at(-1) ?? []).map((down_mm) => down_mm + 3));
  const rows = lines.map((_, row) => ({ base_mm: top_mm + row * row_mm }));
  const segments = lines.flatMap((line, row) =>
    line.map(([lead, from_s, to_s]) => ({
      lead, from_s, to_s, x_mm: LEAD_IN_MM + (from_s - line[0][1]) * MM_PER_S, base_mm: rows[row].base_mm,
    })));
  const longest_s = Math.max(...lines.map((line) => line.at(-1)[2] - line[0][1]));
  const all = usual || !narrow;
  return {
    narrow,
    rows,
    segments,
    shown_s: all ? shown_s : shown_s / 2,
    width_mm: 5 * Math.ceil((LEAD_IN_MM + longest_s * MM_PER_S + TAIL_MM) / 5),
    height_mm: rows.at(-1).base_mm + below_mm,
  };
}

/** `least_mm`, or the largest of `needs_mm` in whole boxes, at most ROOM_MM more. */
function room(least_mm, needs_mm) {
  return Math.min(least_mm + ROOM_MM, Math.max(least_mm, ...needs_mm.map((need_mm) => 5 * Math.ceil(need_mm / 5))));
}

function samplesOf(ecg, lead, from_s, to_s) {
  const first = Math.round(from_s * ecg.sampling_rate_hz);
  const last = Math.round(to_s * ecg.sampling_rate_hz);
  return ecg.signal_uv[ecg.leads.indexOf(lead)].slice(first, last + 1);
}

/** A lead's median is drawn on the baseline, as on an AC-coupled electrocardiograph. */
const medians = new WeakMap();
function median(ecg, lead) {
  if (!medians.has(ecg)) medians.set(ecg, new Map());
  const known = medians.get(ecg);
  if (!known.has(lead)) {
    const sorted = [...ecg.signal_uv[ecg.leads.indexOf(lead)]].sort((a, b) => a - b);
    known.set(lead, sorted[Math.floor(sorted.length / 2)]);
  }
  return known.get(lead);
}

/** How far a segment extends above and below its baseline: [up_mm, down_mm]. */
function reach(ecg, [lead, from_s, to_s]) {
  const samples = samplesOf(ecg, lead, from_s, to_s);
  const zero_uv = median(ecg, lead);
  const up_uv = samples.reduce((a, b) => Math.max(a, b), zero_uv) - zero_uv;
  const down_uv = zero_uv - samples.reduce((a, b) => Math.min(a, b), zero_uv);
  return [(up_uv / 1000) * MM_PER_MV, (down_uv / 1000) * MM_PER_MV];
}

function grid(context, step, lineWidth, colour) {
  const { width, height } = context.canvas;
  context.fillStyle = colour;
  for (let i = 0; i * step < width; i++) context.fillRect(Math.round(i * step), 0, lineWidth, height);
  for (let i = 0; i * step < height; i++) context.fillRect(0, Math.round(i * step), width, lineWidth);
}

/** Calibration pulse: 1 mV for 200 ms. */
function pulse(context, base_mm, mm) {
  const x = 2 * mm;
  const base = base_mm * mm;
  context.beginPath();
  context.moveTo(x, base);
  context.lineTo(x + mm, base);
  context.lineTo(x + mm, base - MM_PER_MV * mm);
  context.lineTo(x + 6 * mm, base - MM_PER_MV * mm);
  context.lineTo(x + 6 * mm, base);
  context.lineTo(x + 7 * mm, base);
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

function trace(context, ecg, { lead, from_s, to_s, x_mm, base_mm }, mm) {
  const zero_uv = median(ecg, lead);
  const step = (MM_PER_S * mm) / ecg.sampling_rate_hz;
  context.beginPath();
  samplesOf(ecg, lead, from_s, to_s).forEach((sample_uv, i) => {
    context.lineTo(x_mm * mm + i * step, base_mm * mm - ((sample_uv - zero_uv) / 1000) * MM_PER_MV * mm);
  });
  context.stroke();
}

/** The ECG in words: {name, text}. */
export function describe(ecg) {
  const spans = ecg.leads.map((lead, row) => {
    const samples = ecg.signal_uv[row];
    const span = samples.reduce((a, b) => Math.max(a, b)) - samples.reduce((a, b) => Math.min(a, b));
    return `${lead} ${(span / 1000).toFixed(2)}`;
  });
  return {
    name: `ECG with ${ecg.leads.length} leads, ${ecg.duration_s} s at ${ecg.sampling_rate_hz} Hz, on paper at 25 mm/s and 10 mm/mV`,
    text: `Peak-to-peak amplitude in mV: ${spans.join(", ")}.`,
  };
}
