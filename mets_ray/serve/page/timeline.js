// Scores over time: reads the lines of /v1/timeline, draws them as a strip while they come, and shows the chosen window.

import { callLines } from "./api.js";
import { $ } from "./dom.js";
import { clock, drawStrip, MOST_ROWS, windowAt } from "./strip.js";

/** {head, windows, summary, rows, selected} of the recording on display, or null. */
let shown = null;
let plan = null;
let onWindow = () => {};
let frame = 0;

/** Call `show(window, ecg, head)` whenever a window is chosen; `ecg` is as from /v1/ecg, null for one that was left out. */
export function listenForWindows(show) {
  onWindow = show;
  const strip = $("strip");
  strip.onpointerdown = (event) => {
    choose(windowAt(event.offsetX, plan, shown));
    strip.setPointerCapture(event.pointerId);
  };
  strip.onpointermove = (event) => {
    if (event.buttons) choose(windowAt(event.offsetX, plan, shown));
  };
  strip.onkeydown = (event) => {
    const page = Math.max(1, Math.round(shown.windows.length / 10));
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -page, PageUp: page };
    const to = { Home: 0, End: shown.windows.length - 1 }[event.key] ?? shown.selected + steps[event.key];
    if (Number.isNaN(to)) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(shown.windows.length - 1, to)));
  };
  new ResizeObserver(drawNow).observe(strip);
  addEventListener("themechange", drawNow);
}

/** Forget the recording and hide the strip. */
export function clearTimeline() {
  shown = null;
  $("timeline").hidden = true;
  $("timeline").classList.remove("stale");
  for (const key of ["timeline-about", "timeline-state", "strip-text", "timeline-readout"]) $(key).textContent = "";
}

/** Show again what `askTimeline` returned; `keeps`: with the window that was chosen, else with none. */
export function showTimeline(found, keeps) {
  shown = found;
  $("timeline").hidden = false;
  $("timeline").classList.remove("stale");
  if (keeps) choose(Math.max(0, found.selected));
  else found.selected = -1;
  drawSoon();
}

/** Mark what is on display as outdated. */
export function timelineIsStale() {
  if (shown) $("timeline").classList.add("stale");
}

/**
 * Ask for the scores over time of `upload` ({form} or {body, type}) and show them as they come. `keeps`: whether a window
 * is shown at once. Returns what was found, with the `bytes` that it takes. Throws Problem.
 */
export async function askTimeline(path, upload, { signal, onWait, keeps, timeout_s }) {
  const before = shown?.windows[shown.selected]?.start_s;
  const found = { head: null, windows: [], summary: null, rows: [], selected: -1, bytes: 0 };
  const onLine = (line) => {
    if (signal.aborted) return;
    if (line.line === "head") {
      found.head = line;
      found.rows = line.classes.map((_, place) => place).slice(0, MOST_ROWS);
      shown = found;
      $("timeline").hidden = false;
      $("timeline").classList.remove("stale");
    } else if (line.line === "window") {
      found.windows.push(line);
      found.bytes += line.signal_uv?.length ?? 0;
      const isWanted = before === undefined ? keeps && line.scores : line.start_s === before;
      if (isWanted && found.selected < 0) choose(found.windows.length - 1);
    } else if (line.line === "summary") {
      finish(found, line);
    }
    drawSoon();
  };
  await callLines(path, { method: "POST", ...upload, signal, onWait, onLine, timeout_s });
  if (!signal.aborted && found.selected < 0 && keeps) choose(0); // all were left out
  return found;
}

function finish(found, summary) {
  found.summary = summary;
  const highest = summary.classes.map((item) => item.highest_score);
  if (highest.length > MOST_ROWS) {
    found.rows = highest.map((_, place) => place).sort((a, b) => highest[b] - highest[a]).slice(0, MOST_ROWS);
  }
}

function choose(place) {
  if (place < 0 || !shown?.windows[place]) return;
  shown.selected = place;
  const item = shown.windows[place];
  const span = `${clock(item.start_s)} to ${clock(item.end_s)}`;
  const words = item.scores ? best(item) : `left out, ${item.message ?? item.left_out}`;
  const strip = $("strip");
  strip.ariaValueNow = place + 1;
  strip.ariaValueText = `${span}: ${words}`;
  $("timeline-readout").textContent = `${span}: ${words}`;
  onWindow(item, ecgOf(item), shown.head);
  drawSoon();
}

function best(item) {
  const place = item.similarities.indexOf(Math.max(...item.similarities));  // scores are rounded, small ones to the same
  return `${shown.head.classes[place]} ${item.scores[place].toFixed(2)}`;
}

/** The window in the form of /v1/ecg's answer; null where it was left out. */
function ecgOf({ start_s, signal_uv }) {
  const { signal, window_s, windows } = shown.head;
  if (!signal_uv) return null;
  const bytes = Uint8Array.from(atob(signal_uv), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const row = (lead) =>
    Array.from({ length: signal.samples }, (_, i) => view.getInt16(2 * (lead * signal.samples + i), true));
  return {
    leads: signal.leads,
    sampling_rate_hz: signal.sampling_rate_hz,
    highpass_hz: signal.highpass_hz,
    duration_s: window_s,
    signal_uv: signal.leads.map((_, lead) => row(lead)),
    windows,
    warnings: shown.head.warnings,
    start_s,
  };
}

function drawSoon() {
  frame ||= requestAnimationFrame(drawNow);
}

function drawNow() {
  cancelAnimationFrame(frame);
  frame = 0;
  if (!shown?.head || $("timeline").hidden) return;
  plan = drawStrip($("strip"), shown);
  const { head, windows, summary } = shown;
  const strip = $("strip");
  strip.ariaValueMin = shown.selected < 0 ? 0 : 1;
  strip.ariaValueNow = shown.selected + 1;
  if (shown.selected < 0) strip.ariaValueText = "no window is chosen";
  strip.ariaValueMax = windows.length;
  $("timeline-about").textContent = about(head, shown.rows);
  $("timeline-state").textContent = summary ? "" : `${windows.length} of ${head.windows} windows…`;
  $("strip-text").textContent = summary ? inWords(summary) : "";
}

function about({ windows, window_s, stride_s, duration_s, classes }, rows) {
  const facts = [`${clock(duration_s)} in ${windows} windows of ${window_s} s`];
  if (stride_s !== window_s) facts.push(`one every ${stride_s} s`);
  if (rows.length < classes.length) facts.push(`${rows.length} of ${classes.length} classes`);
  facts.push("more colour is a higher score");
  return facts.join("; ");
}

/** The summary for everybody: what was left out, and where the highest scores are. */
function inWords({ scored, windows, left_out, classes }) {
  const reasons = Object.entries(left_out).map(([reason, count]) => `${count} ${reason}`).join(", ");
  const top = [...classes].sort((a, b) => b.share_first - a.share_first).slice(0, 3).filter((item) => item.share_first > 0)
    .map((item) => `${item.class_name} first in ${Math.round(100 * item.share_first)} %, highest ${item.highest_score.toFixed(2)} at ${clock(item.highest_at_s)}`);
  return [
    `${scored} of ${windows} windows scored${reasons ? `; left out: ${reasons}` : ""}`, ...top,
  ].join("; ") + ".";
}
