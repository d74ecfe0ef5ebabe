// One A4 page for the printer or a PDF: the ECG, its scores with their thresholds, what made them, and the date.

import { $, element } from "./dom.js";
import { ecg, factsOf } from "./ecg.js";
import { drawForPrint } from "./paper.js";
import { model } from "./model.js";
import { onDisplay } from "./records.js";
import { result } from "./scoring.js";
import { aboutScores, rowsOf } from "./scores.js";
import { view } from "./view.js";

// What is left of A4 for the ECG, beside the margins, the scores and the words.
const ROOM = { width_mm: 277, height_mm: 128 };

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
  const plan = drawForPrint($("sheet-paper"), ecg, { view, ...ROOM });
  const share = plan.share === 1 ? "true size" : `${Math.round(100 * plan.share)} % of true size`;
  const size = `${share} when printed at 100 %`;
  $("sheet-caption").replaceChildren(...spans([...factsOf(ecg, plan), size]));
  const notes = [...new Set([...$("warnings").children].map((item) => item.textContent))];
  $("sheet-notes").textContent = notes.length ? `Note: ${notes.join(" ")}` : "";
  $("sheet-synthetic").hidden = !model?.training_data.synthetic;
  $("sheet-versions").replaceChildren(...spans(versions(result.answer)));
  fillBars();
}

/** As many classes as fit, the highest first. */
function fillBars() {
  const [sheet, bars, about] = [$("sheet"), $("sheet-bars"), $("sheet-about")];
  const rows = rowsOf(result.answer);
  const words = result.part + aboutScores(result.answer);
  bars.replaceChildren(...rows);
  about.textContent = words;
  sheet.classList.add("measured");
  // Columns without room for all rows get neighbours to the right.
  const overflows = () => bars.scrollWidth > bars.clientWidth + 1 || bars.scrollHeight > bars.clientHeight + 1;
  while (bars.children.length > 1 && overflows()) {
    bars.lastChild.remove();
    about.textContent = `the ${bars.children.length} highest of ${rows.length} classes; ${words}`;
  }
  sheet.classList.remove("measured");
}

function versions(answer) {
  const words = [`model ${answer.model_version}`, `mets_ray ${model?.package_version ?? "of unknown version"}`];
  if (answer.head) words.push(`head ${answer.head}`);
  else if (answer.prompt_set) words.push(`prompt set ${answer.prompt_set}`);
  else if (answer.hypothesis_template === "{}") words.push("classes as typed");
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
