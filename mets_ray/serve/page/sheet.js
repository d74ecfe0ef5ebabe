// One A4 page for the printer or a PDF: the ECG, its scores with their thresholds, what made them, and the date.

import { $, element } from "./dom.js";
import { ecg, factsOf, underlays } from "./ecg.js";
import { drawForPrint } from "./paper.js";
import { model } from "./model.js";
import { onDisplay } from "./records.js";
import { result } from "./scoring.js";
import { aboutScores, rowsOf } from "./scores.js";
import { view } from "./view.js";

const MOST_ROWS = 24;
// What is left of A4 for the ECG, beside the margins, the scores and the words.
const WIDTH_MM = 277;
const HEIGHT_MM = 128;

export function listenForPrint() {
  addEventListener("beforeprint", fill);
  addEventListener("afterprint", () => document.body.classList.remove("has-sheet"));
  $("print").onclick = () => window.print();
}

/** Fill the sheet in; without scores on display, the page itself is printed. */
function fill() {
  const isReady = Boolean(ecg && result && !$("scores").classList.contains("stale"));
  document.body.classList.toggle("has-sheet", isReady);
  if (!isReady) return;
  const plan = drawForPrint($("sheet-paper"), ecg, { view, underlays });
  const share = Math.min(1, WIDTH_MM / plan.width_mm, HEIGHT_MM / plan.height_mm);
  const size = share === 1 ? "true size when printed at 100 %" : `printed at ${Math.floor(100 * share)} % of true size`;
  Object.assign($("sheet-paper").style, { width: `${plan.width_mm * share}mm`, height: `${plan.height_mm * share}mm` });
  $("sheet-caption").replaceChildren(...spans([...factsOf(ecg, plan), size]));
  const rows = rowsOf(result.answer);
  $("sheet-bars").replaceChildren(...rows.slice(0, MOST_ROWS));
  const cut = rows.length > MOST_ROWS ? `the ${MOST_ROWS} highest of ${rows.length} classes; ` : "";
  $("sheet-about").textContent = cut + result.part + aboutScores(result.answer);
  const notes = [...new Set([...$("warnings").children].map((item) => item.textContent))];
  $("sheet-notes").textContent = notes.length ? `Note: ${notes.join(" ")}` : "";
  $("sheet-synthetic").hidden = !model?.training_data.synthetic;
  $("sheet-versions").replaceChildren(...spans(versions(result.answer)));
}

function versions(answer) {
  const words = [`model ${answer.model_version}`, `mets_ray ${model?.package_version ?? "of unknown version"}`];
  if (answer.prompt_set) words.push(`prompt set ${answer.prompt_set}`);
  else words.push(`classes as typed, in the sentence “${answer.hypothesis_template}”`);
  const credit = onDisplay()?.example?.credit;
  if (credit) words.push(`ECG: ${credit}`);
  words.push(`printed ${now()}`);
  return words;
}

/** Date and time here, as 2026-11-26 14:05. */
function now() {
  const date = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

const spans = (facts) => facts.map((fact) => element("span", {}, fact));
