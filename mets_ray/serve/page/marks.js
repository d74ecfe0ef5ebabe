// Marks on ECG paper as numbers: a mark is {segment, time_s, mv}, with `segment` a position in `plan.segments` and `mv`
// counted from the lead's baseline.

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Where marks begin: one second apart in the last row, on its baseline. */
export function twoMarks(plan) {
  const segment = plan.segments.length - 1;
  const { lead, from_s, to_s } = plan.segments[segment];
  const span_s = to_s - from_s;
  return [0.2, 0.2 + Math.min(0.6, 1 / span_s)].map((share) => ({ segment, lead, time_s: from_s + share * span_s, mv: 0 }));
}

/** {x_mm, y_mm} of a mark on the paper. */
export function pointOf(plan, { segment, time_s, mv }) {
  const { x_mm, base_mm, from_s } = plan.segments[segment];
  return { x_mm: x_mm + (time_s - from_s) * plan.speed_mm_s, y_mm: base_mm - mv * plan.gain_mm_mv };
}

/** The mark at a point of the paper. `base_mm`: of the row that it must lie in; null for the nearest. */
export function nearest(plan, { x_mm, y_mm }, base_mm = null) {
  const rows = plan.rows.map((row) => row.base_mm);
  const base = base_mm ?? rows.reduce((a, b) => (Math.abs(b - y_mm) < Math.abs(a - y_mm) ? b : a));
  const inRow = plan.segments.map((segment, place) => ({ segment, place }))
    .filter(({ segment }) => segment.base_mm === base);
  const { segment, place } = inRow.filter(({ segment }) => segment.x_mm <= x_mm).at(-1) ?? inRow[0];
  const time_s = segment.from_s + (x_mm - segment.x_mm) / plan.speed_mm_s;
  return moved(plan, { segment: place, lead: segment.lead, time_s, mv: (base - y_mm) / plan.gain_mm_mv });
}

/** The same mark on another plan, or after a step: in its lead where that is drawn at its time, else as near as possible. */
export function moved(plan, { segment, lead, time_s, mv }) {
  const holds = (one) => one !== undefined && time_s >= one.from_s && time_s <= one.to_s;
  const here = plan.segments[segment];
  const isHere = here?.lead === lead;
  // A step over the edge of a lead goes on in the next one of its row.
  const beside = [segment, segment - 1, segment + 1].find(
    (place) => isHere && holds(plan.segments[place]) && plan.segments[place].base_mm === here.base_mm);
  const elsewhere = plan.segments.findIndex((one) => one.lead === lead && holds(one));
  const place = beside ?? (elsewhere >= 0 ? elsewhere : clamp(segment, 0, plan.segments.length - 1));
  const found = plan.segments[place];
  return {
    segment: place,
    lead: found.lead,
    time_s: clamp(time_s, found.from_s, found.to_s),
    mv: clamp(mv, (found.base_mm - plan.height_mm) / plan.gain_mm_mv, found.base_mm / plan.gain_mm_mv),
  };
}

/** The mark in the lead before (-1) or after (1), as far from its beginning. */
export function toOtherLead(plan, { segment, time_s, mv }, step) {
  const place = clamp(segment + step, 0, plan.segments.length - 1);
  const { lead, from_s } = plan.segments[place];
  return { segment: place, lead, time_s: from_s + time_s - plan.segments[segment].from_s, mv };
}

/** What lies between two marks; without an amplitude (null) where they are on different leads. */
export function measure(plan, a, b) {
  const [first, second] = [plan.segments[a.segment], plan.segments[b.segment]];
  const interval_s = Math.abs(b.time_s - a.time_s);
  const mv = first.lead === second.lead ? b.mv - a.mv : null;
  return {
    lead: first.lead,
    interval_ms: Math.round(1000 * interval_s),
    per_minute: interval_s >= 0.1 ? Math.round(60 / interval_s) : null, // above 600 it is no rate
    interval_mm: interval_s * plan.speed_mm_s,
    mv,
    height_mm: mv === null ? null : mv * plan.gain_mm_mv,
  };
}

export function words({ lead, interval_ms, per_minute, interval_mm, mv, height_mm }) {
  const signed = (value, digits) => {
    const size = Math.abs(value).toFixed(digits);
    return Number(size) === 0 ? size : `${value < 0 ? "−" : "+"}${size}`;
  };
  const rate = per_minute === null ? "" : `, ${per_minute} bpm`;
  const amplitude = mv === null
    ? "no amplitude between two leads" : `${signed(mv, 2)} mV (${signed(height_mm, 1)} mm) in ${lead}`;
  return `${interval_ms} ms (${interval_mm.toFixed(1)} mm)${rate}; ${amplitude}.`;
}
