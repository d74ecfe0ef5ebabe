// The ECG on display: its paper, what is true of what is drawn, and its warnings.

import { placeCalipers } from "./calipers.js";
import { $, element, sentence } from "./dom.js";
import { draw } from "./paper.js";
import { clock } from "./strip.js";
import { view } from "./view.js";

/** A response of /v1/ecg, or a window of a recording in the same form; null for none. */
export let ecg = null;
/** What else draws on the paper, beneath the traces: see `draw`. Call `drawPaper` after a change. */
export const underlays = [];

export function showEcg(answer) {
  ecg = answer;
  for (const id of ["warnings", "caption"]) $(id).replaceChildren();
  $("ecg-text").textContent = ecg ? amplitudes(ecg) : "";
  $("view-tools").hidden = ecg === null;
  if (ecg) showWarnings(ecg.warnings);
  drawPaper();
}

export function drawPaper() {
  const scroll = $("paper-scroll");
  // Without the border, and whether or not there are scroll bars: they must not change what they depend on.
  const plan = draw($("paper"), ecg, { view, width_px: $("paper-frame").clientWidth - 2, underlays });
  const overflows = scroll.scrollWidth > scroll.clientWidth || scroll.scrollHeight > scroll.clientHeight;
  if (overflows) scroll.tabIndex = 0;
  else scroll.removeAttribute("tabindex");
  placeCalipers(plan, ecg);
  $("paper").ariaLabel = ecg ? nameOf(ecg) : "Empty ECG paper";
  if (ecg && plan) $("caption").replaceChildren(...factsOf(ecg, plan).map((fact) => element("span", {}, fact)));
}

/** What is true of the drawing, in a few words each. */
export function factsOf({ sampling_rate_hz, duration_s, start_s, windows, highpass_hz, warnings }, plan) {
  const facts = [`${plan.speed_mm_s} mm/s`, `${plan.gain_mm_mv} mm/mV`];
  facts.push(plan.shown_s < duration_s ? `first ${plan.shown_s} of ${duration_s} s` : `${duration_s} s`);
  if (start_s !== undefined) facts.unshift(`from ${clock(start_s)} to ${clock(start_s + duration_s)}`);
  else if (windows > 1) facts.push(`window 1 of ${windows}`);
  const isResampled = warnings.some(({ reason }) => reason === "resampled");
  const filter = highpass_hz ? `zero-phase high-pass at ${highpass_hz} Hz` : "no filter";
  facts.push(`as the model sees it: ${isResampled ? "resampled to " : ""}${sampling_rate_hz} Hz, ${filter}`);
  facts.push("each lead’s median on its line");
  return facts;
}

export function showWarnings(warnings) {
  const shown = new Map(warnings.map((warning) => [warning.message, warning]));
  $("warnings").replaceChildren(...[...shown.values()].map(({ message }) => element("li", {}, ...sentence(message))));
}

const nameOf = ({ leads, duration_s, sampling_rate_hz }) =>
  `ECG with ${leads.length} leads, ${duration_s} s at ${sampling_rate_hz} Hz, `
    + `on paper at ${view.speed_mm_s} mm/s and ${view.gain_mm_mv} mm/mV`;

/** For a screen reader. */
function amplitudes({ leads, signal_uv }) {
  const spans = leads.map((lead, row) => {
    const samples = signal_uv[row];
    const span = samples.reduce((a, b) => Math.max(a, b)) - samples.reduce((a, b) => Math.min(a, b));
    return `${lead} ${(span / 1000).toFixed(2)}`;
  });
  return `Peak-to-peak amplitude in mV: ${spans.join(", ")}.`;
}
