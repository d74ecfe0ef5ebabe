// Class by time: one row for each class, one column for each window, darker for higher scores.

const ROW_PX = 17;
const AXIS_PX = 22;
const NARROW_PX = 560;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
export const MOST_ROWS = 20;

/**
 * Draw `windows` (lines of /v1/timeline) as wide as the canvas is laid out. `rows` are positions of classes in the head.
 * Returns {left_px, width_px}: where the time axis lies, in CSS pixels.
 */
export function drawStrip(canvas, { head, windows, rows, selected }) {
  const ratio = window.devicePixelRatio || 1;
  const widthPx = canvas.clientWidth;
  const left = widthPx < NARROW_PX ? 92 : 190;
  const plan = { left_px: left, width_px: Math.max(1, widthPx - left - 1) };
  const height = rows.length * ROW_PX + AXIS_PX;
  canvas.width = Math.round(widthPx * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const x = (time_s) => left + (time_s / head.duration_s) * plan.width_px;
  const sharp = (px) => Math.round(px * ratio) / ratio; // no seams between columns
  const bottom = rows.length * ROW_PX;

  context.fillStyle = colour("--surface");
  context.fillRect(left, 0, plan.width_px, bottom);
  // A column ends where the next one begins: windows may overlap, or leave time between them.
  const shown_s = Math.min(head.window_s, head.stride_s);
  for (const item of windows) {
    const from = sharp(x(item.start_s));
    const width = Math.max(sharp(x(item.start_s + shown_s)) - from, 1 / ratio);
    if (!item.scores) {
      hatch(context, from, width, bottom, colour("--edge"));
      continue;
    }
    context.fillStyle = colour("--heat");
    rows.forEach((place, row) => {
      context.globalAlpha = item.scores[place];
      context.fillRect(from, row * ROW_PX + 1, width, ROW_PX - 1);
    });
    context.globalAlpha = 1;
  }
  labels(context, head, rows, left, `12px ${style.fontFamily}`, colour("--ink"));
  axis(context, head.duration_s, x, bottom, `11px ${style.fontFamily}`, colour("--ink-2"), colour("--rule"));
  if (windows[selected]) {
    context.strokeStyle = colour("--ink");
    context.lineWidth = 2;
    const from = x(windows[selected].start_s);
    context.strokeRect(from - 1, 1, Math.max(x(windows[selected].end_s) - from, 3) + 1, bottom - 1);
  }
  return plan;
}

/** The window that a position on the canvas belongs to; -1 for none. */
export function windowAt(px, { left_px, width_px }, { head, windows }) {
  if (px < left_px || !windows.length) return -1;
  const time_s = ((px - left_px) / width_px) * head.duration_s;
  return Math.max(0, Math.min(windows.length - 1, Math.floor(time_s / head.stride_s)));
}

/** 1:05 of 65 s, 1:01:05 of 3665 s; tenths where they are needed. */
export function clock(time_s) {
  const tenths = Math.round(10 * time_s);
  const whole = Math.floor(tenths / 10);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const words = hours ? `${hours}:${String(minutes).padStart(2, "0")}` : `${minutes}`;
  return `${words}:${String(whole % 60).padStart(2, "0")}${tenths % 10 ? `.${tenths % 10}` : ""}`;
}

function labels(context, head, rows, width, font, colour) {
  context.font = font;
  context.fillStyle = colour;
  context.textBaseline = "middle";
  rows.forEach((place, row) => {
    let name = head.classes[place];
    while (name.length > 1 && context.measureText(name).width > width - 10) name = `${name.replace(/…$/, "").slice(0, -1)}…`;
    context.fillText(name, 0, row * ROW_PX + ROW_PX / 2 + 1);
  });
}

function axis(context, duration_s, x, top, font, ink, rule) {
  const space = (step_s) => x(step_s) - x(0);
  const step_s = STEPS_S.find((step) => space(step) >= 58) ?? STEPS_S.at(-1);
  context.font = font;
  context.textBaseline = "top";
  for (let time_s = 0; time_s <= duration_s; time_s += step_s) {
    context.fillStyle = rule;
    context.fillRect(x(time_s), 0, 1, top + 5);
    context.fillStyle = ink;
    const words = clock(time_s);
    const width = context.measureText(words).width;
    const at = time_s === 0 ? x(0) : Math.min(x(time_s) - width / 2, x(duration_s) - width);
    context.fillText(words, at, top + 7);
  }
}

/** Left out: diagonal lines, which no score looks like. */
function hatch(context, from, width, height, colour) {
  context.save();
  context.beginPath();
  context.rect(from, 0, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  const first = Math.floor((from - height) / 6) * 6;
  for (let x = first; x < from + width; x += 6) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  context.restore();
}
