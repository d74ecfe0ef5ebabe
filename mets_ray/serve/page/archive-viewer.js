// One ECG, large.

import { factsOf, hidePeek, hits, mark } from "./archive-cards.js";
import { choose, isChosen } from "./archive-list.js";
import { traceOf } from "./archive-traces.js";
import { $, showProblem } from "./dom.js";
import { USUAL_VIEW } from "./layout.js";
import { draw } from "./paper.js";

let shown = null;
let ecg = null;
let onLike = () => {};

export function listenForViewer({ like }) {
  onLike = like;
  $("viewer-close").onclick = () => $("viewer").close();
  $("viewer-before").onclick = () => step(-1);
  $("viewer-after").onclick = () => step(1);
  $("viewer-add").onclick = () => choose(shown, !isChosen(shown));
  $("viewer-like").onclick = () => {
    $("viewer").close();
    onLike(shown);
  };
  $("viewer").onkeydown = (event) => {
    if (event.target === $("viewer-scroll")) return; // there the arrows scroll
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  addEventListener("themechange", drawLarge);
  new ResizeObserver(drawLarge).observe($("viewer"));
}

/** Open a hit. Closing it gives the focus back to where it was. */
export async function openViewer(hit) {
  hidePeek();
  [shown, ecg] = [hit, null];
  $("viewer-heading").textContent = `ECG ${hit.record_id}`;
  $("viewer-facts").textContent = factsOf(hit).join(" · ");
  $("viewer-report").textContent = "";
  showViewerTools();
  showProblem($("viewer-problem"), null);
  if (!$("viewer").open) $("viewer").showModal();
  drawLarge();
  try {
    const found = await traceOf(hit);
    if (shown !== hit) return;
    ecg = found;
    $("viewer-report").textContent = ecg.report ? `Report: ${ecg.report}` : "";
    drawLarge();
  } catch (error) {
    if (shown === hit) showProblem($("viewer-problem"), error, () => openViewer(hit));
  }
}

export function showViewerTools() {
  if (!shown) return;
  mark($("viewer-add"), shown);
  const place = hits.indexOf(shown);
  $("viewer-before").disabled = place <= 0;
  $("viewer-after").disabled = place < 0 || place === hits.length - 1;
}

function step(by) {
  const hit = hits[hits.indexOf(shown) + by];
  if (hits.includes(shown) && hit) openViewer(hit);
}

function drawLarge() {
  const scroll = $("viewer-scroll");
  if (!$("viewer").open) return;
  const plan = draw($("viewer-paper"), ecg, { view: USUAL_VIEW, width_px: scroll.clientWidth });
  if (scroll.scrollHeight > scroll.clientHeight || scroll.scrollWidth > scroll.clientWidth) scroll.tabIndex = 0;
  else scroll.removeAttribute("tabindex");
  $("viewer-paper").ariaLabel = ecg ? `ECG ${shown.record_id} with ${ecg.leads.length} leads, ${ecg.duration_s} s` : "Empty ECG paper";
  $("viewer-caption").textContent = ecg && plan
    ? `${plan.speed_mm_s} mm/s · ${plan.gain_mm_mv} mm/mV · as it was prepared: ${ecg.sampling_rate_hz} Hz, `
      + (ecg.highpass_hz ? `zero-phase high-pass at ${ecg.highpass_hz} Hz` : "no filter")
    : "";
}
