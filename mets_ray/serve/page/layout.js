// Where each lead lies on ECG paper, in millimetres. Rows have a baseline; a segment is one lead's stretch of a row.

const LIMB = ["I", "II", "III", "aVR", "aVL", "aVF"];
const CHEST = ["V1", "V2", "V3", "V4", "V5", "V6"];
const STRIP = "II";
const LONGEST_S = 10;
const TAIL_MM = 5;
const PULSE_S = 0.2;
// Minimum heights; large deflections get more room, up to ROOM_MM more at 10 mm/mV.
const ROW_MM = 30;
const NARROW_ROW_MM = 25;
const HEADROOM_MM = 20;
const BELOW_MM = 15;
const ROOM_MM = 15;

export const USUAL_VIEW = Object.freeze({ speed_mm_s: 25, gain_mm_mv: 10, zoom: 1 });

/**
 * The layout of `ecg` (a response of /v1/ecg; null for empty paper) in a view {speed_mm_s, gain_mm_mv}. `narrow`: two
 * columns in place of four. Returns {rows: [{base_mm}], segments: [{lead, from_s, to_s, x_mm, base_mm}], shown_s,
 * lead_in_mm, width_mm, height_mm, fit_mm}; `fit_mm` is what should fit the screen when nothing is enlarged.
 */
export function layOut(ecg, { speed_mm_s, gain_mm_mv }, narrow) {
  const shown_s = Math.min(ecg?.duration_s ?? LONGEST_S, LONGEST_S);
  const leads = ecg?.leads ?? [...LIMB, ...CHEST];
  const usual = leads.length === 12 && [...LIMB, ...CHEST].every((lead) => leads.includes(lead));
  const lines = usual ? usualLines(shown_s, narrow) : leads.map((lead) => [[lead, 0, shown_s]]);
  const { top_mm, row_mm, below_mm } = heights(ecg, lines, gain_mm_mv, narrow);
  const lead_in_mm = leadIn(speed_mm_s);
  const rows = lines.map((_, row) => ({ base_mm: top_mm + row * row_mm }));
  const segments = lines.flatMap((line, row) =>
    line.map(([lead, from_s, to_s]) => ({
      lead, from_s, to_s, x_mm: lead_in_mm + (from_s - line[0][1]) * speed_mm_s, base_mm: rows[row].base_mm,
    })));
  const longest_s = Math.max(...lines.map((line) => line.at(-1)[2] - line[0][1]));
  const widthOf = (time_s, speed) => 5 * Math.ceil((leadIn(speed) + time_s * speed + TAIL_MM) / 5);
  return {
    narrow, rows, segments, shown_s, speed_mm_s, gain_mm_mv, lead_in_mm,
    width_mm: widthOf(longest_s, speed_mm_s),
    height_mm: rows.at(-1).base_mm + below_mm,
    // Of a few long leads on a phone, half fits and the rest is a swipe away.
    fit_mm: widthOf(!usual && narrow ? longest_s / 2 : longest_s, USUAL_VIEW.speed_mm_s),
  };
}

/** Room for the calibration pulse before the traces. */
const leadIn = (speed_mm_s) => 5 + PULSE_S * speed_mm_s;

function usualLines(shown_s, narrow) {
  const part_s = shown_s / 4;
  if (narrow) {
    // Two columns of six leads, and the rhythm strip on two lines.
    return [
      ...LIMB.map((lead, row) => [[lead, 0, part_s], [CHEST[row], part_s, 2 * part_s]]),
      [[STRIP, 0, 2 * part_s]], [[STRIP, 2 * part_s, 4 * part_s]],
    ];
  }
  const columns = [LIMB.slice(0, 3), LIMB.slice(3), CHEST.slice(0, 3), CHEST.slice(3)];
  const lines = [0, 1, 2].map((row) =>
    columns.map((column, place) => [column[row], place * part_s, (place + 1) * part_s]));
  return [...lines, [[STRIP, 0, shown_s]]];
}

function heights(ecg, lines, gain_mm_mv, narrow) {
  const reaches = ecg ? lines.map((line) => line.map((segment) => reach(ecg, segment, gain_mm_mv))) : [];
  const ups = reaches.map((row) => row.map(([up_mm]) => up_mm));
  const downs = reaches.map((row) => row.map(([, down_mm]) => down_mm));
  // A segment can overlap the one below it in its column; a strip can overlap every segment above it.
  const meets = ups.slice(1).flatMap((row, above) => downs[above].map((down_mm, column) => down_mm + (row[column] ?? row[0])));
  const most_mm = (ROOM_MM * Math.max(gain_mm_mv, 10)) / 10;
  return {
    top_mm: room(HEADROOM_MM, most_mm, (ups[0] ?? []).map((up_mm) => up_mm + 5)),
    row_mm: room(narrow ? NARROW_ROW_MM : ROW_MM, most_mm, meets),
    below_mm: room(BELOW_MM, most_mm, (downs.at(-1) ?? []).map((down_mm) => down_mm + 3)),
  };
}

/** `least_mm`, or the largest of `needs_mm` in whole boxes, at most `most_mm` more. */
function room(least_mm, most_mm, needs_mm) {
  return Math.min(least_mm + most_mm, Math.max(least_mm, ...needs_mm.map((need_mm) => 5 * Math.ceil(need_mm / 5))));
}

export function samplesOf(ecg, { lead, from_s, to_s }) {
  const first = Math.round(from_s * ecg.sampling_rate_hz);
  const last = Math.round(to_s * ecg.sampling_rate_hz);
  return ecg.signal_uv[ecg.leads.indexOf(lead)].slice(first, last + 1);
}

/** A lead's median is drawn on the baseline, as on an AC-coupled electrocardiograph. */
const medians = new WeakMap();
export function median(ecg, lead) {
  if (!medians.has(ecg)) medians.set(ecg, new Map());
  const known = medians.get(ecg);
  if (!known.has(lead)) {
    const sorted = [...ecg.signal_uv[ecg.leads.indexOf(lead)]].sort((a, b) => a - b);
    known.set(lead, sorted[Math.floor(sorted.length / 2)]);
  }
  return known.get(lead);
}

/** How far a segment extends above and below its baseline: [up_mm, down_mm]. */
function reach(ecg, [lead, from_s, to_s], gain_mm_mv) {
  const samples = samplesOf(ecg, { lead, from_s, to_s });
  const zero_uv = median(ecg, lead);
  const up_uv = samples.reduce((a, b) => Math.max(a, b), zero_uv) - zero_uv;
  const down_uv = zero_uv - samples.reduce((a, b) => Math.min(a, b), zero_uv);
  return [(up_uv / 1000) * gain_mm_mv, (down_uv / 1000) * gain_mm_mv];
}
