// The scores of the ECG on display: asked for, shown, and kept with it.

import { call } from "./api.js";
import { checkLength, hasClasses, settings as asked, settingsQuery } from "./classes.js";
import { $, element } from "./dom.js";
import { ecg, showEcg, showWarnings } from "./ecg.js";
import { offerExplanation } from "./explain.js";
import { ending } from "./files.js";
import { model } from "./model.js";
import { keep, onDisplay, wantResultsFor } from "./records.js";
import { aboutScores, bestInWords, clearBars, runFacts, showBars, spokenScores } from "./scores.js";
import { clock } from "./strip.js";
import { begin, busy, clearProblems, idle, onWait, report, stop } from "./tasks.js";
import { askTimeline, clearTimeline, showTimeline, timelineIsStale } from "./timeline.js";

const CLASS_REASONS = new Set([
  "no_classes", "too_many_classes", "repeated_class", "blank_class", "class_too_long", "not_unicode",
  "unknown_text", "unknown_prompt_set", "ambiguous_prompt_set", "long_query",
]);

/** The scores on display: {answer, part}, with a response of /v1/zero-shot and the part that it is of, in words; or null. */
export let result = null;
/** Of a recording with several windows: what is shown when none of them is chosen, {ecg, answer}. */
let whole = null;
let timer = 0;
let explaining = null; // the signal of the last explanation that was asked for

/** Show the scores of the ECG on display: those kept, or new ones in `delay_ms`; until then the old ones are stale. */
export function score(delay_ms) {
  stopScoring();
  const settings = String(settingsQuery());
  wantResultsFor(settings);
  const record = onDisplay();
  if (!record?.isRead) return;
  if (!hasClasses()) {
    clearScores("Type at least one class.");
    clearTimeline();
    return;
  }
  if (record.kept?.settings === settings) {
    showKept(record);
    return;
  }
  if (record.isLong && asked().head) {
    clearScores("A head gives no scores over time, and this recording is too long for one answer: choose a list of words.");
    clearTimeline();
    return;
  }
  timelineIsStale();
  $("scores").classList.add("stale");
  $("nothing").hidden = true;
  $("state").textContent = "Updating…";
  timer = setTimeout(() => (record.isLong ? askLong(record, settings) : askScores(record, settings)), delay_ms);
}

/** Show no scores, and stop what would bring some. */
export function clearResult() {
  stopScoring();
  clearScores();
  showWhole(null);
  clearTimeline();
}

function stopScoring() {
  stop("score", "timeline", "explain");
  clearTimeout(timer);
  offerExplanation(null);
  clearProblems("score-problem", "class-problem", "template-problem", "timeline-problem");
}

// --- asking ---

/** The facts that the files do not state, then the classes. Throws Problem. */
function scoreQuery(record) {
  const query = new URLSearchParams([...record.query, ...settingsQuery()]);
  checkLength(query);
  return query;
}

/** Scores of the whole recording, then, by words and if it has several windows, over time. */
async function askScores(record, settings) {
  const signal = begin("score");
  try {
    const path = asked().head ? "v1/predict" : "v1/zero-shot";
    const { answer } = await call(withQuery(path, scoreQuery(record)), {
      method: "POST", form: upload(record), signal, onWait,
    });
    keep(record, { settings, answer, over: null, words: bestInWords(answer) });
    showKept(record);
  } catch (error) {
    failed(error, signal, "score-problem");
  }
}

/** Scores over time of a recording that is too long for any other request. */
async function askLong(record, settings) {
  busy("Sending the recording…");
  await askOverTime(record, settings, begin("score"), "score-problem");
}

/** Why the scores on display are what they are: the same request, with the classes to explain. */
export async function askExplanation(names) {
  const record = onDisplay();
  const query = scoreQuery(record);
  query.set("explain", true);
  for (const name of names) query.append("explain_classes", name);
  explaining = begin("explain");
  const { answer } = await call(withQuery("v1/zero-shot", query), {
    method: "POST", form: upload(record), signal: explaining, onWait,
  });
  return answer.explanation;
}

export const explanationFailed = (error, retry) => report(error, explaining, "why-problem", retry);

async function askOverTime(record, settings, signal, slot) {
  try {
    const query = scoreQuery(record);
    query.set("signals", true);
    const timeout_s = (model?.limits.timeline_deadline_s ?? 120) + 15;
    const over = await askTimeline(withQuery("v1/timeline", query), longUpload(record), {
      signal, onWait, keeps: record.isLong, timeout_s,
    });
    signal.throwIfAborted();
    idle();
    const { scored, windows } = over.summary;
    const kept = record.isLong
      ? { settings, answer: null, words: `${scored} of ${windows} windows scored` } : record.kept;
    keep(record, { ...kept, over });
  } catch (error) {
    if (!signal.aborted) idle();
    failed(error, signal, slot);
  }
}

/** The form of a short request. */
export function upload({ files }) {
  const form = new FormData();
  for (const file of files) form.append("file", file, file.name);
  return form;
}

/** A long recording in the form that the server need not hold in memory, if there is one. */
function longUpload(record) {
  const [file] = record.files;
  return ending(file.name) === "npy" ? { body: file, type: "application/x-npy" } : { form: upload(record) };
}

export function withQuery(path, query) {
  const text = String(query);
  return text ? `${path}?${text}` : path;
}

function failed(error, signal, wanted) {
  if (signal.aborted) return;
  if (wanted === "timeline-problem") {
    report(error, signal, wanted, () => score(0));
    return;
  }
  const ofClasses = CLASS_REASONS.has(error.reason) ? "class-problem" : wanted;
  const slot = error.reason === "bad_template" ? "template-problem" : ofClasses;
  clearScores(slot === wanted ? "" : "No scores: see the message next to the classes.");
  clearTimeline();
  if (slot === "template-problem") $("advanced").open = true;
  report(error, signal, slot, () => score(0));
}

// --- showing ---

/** Show what is kept of `record`; of a recording with several windows, ask for the scores over time that are missing. */
function showKept(record) {
  const { settings, answer, over } = record.kept;
  if (record.isLong) {
    if (over) showTimeline(over, true);
    else askLong(record, settings);
  } else if (answer.windows > 1 && !answer.head) {
    showWhole({ ecg: record.ecg, answer });
    if (over) showTimeline(over, false);
    else askOverTime(record, settings, begin("timeline"), "timeline-problem");
  } else {
    clearTimeline();
    showScores(answer);
  }
}

/** One window of a recording, as /v1/timeline gives it. */
export function showWindow(item, windowEcg, head) {
  $("whole").hidden = !whole;
  showEcg(windowEcg);
  showWarnings(head.warnings);
  if (!item.scores) {
    $("caption").replaceChildren(element("span", {}, `left out: ${item.message ?? item.left_out}`));
    clearScores("This window was left out, so it has no scores.");
    return;
  }
  const order = item.scores.map((_, place) => place).sort((a, b) => item.similarities[b] - item.similarities[a]);
  const ranks = new Map(order.map((place, rank) => [place, rank + 1]));
  const classes = head.classes.map((class_name, place) => ({
    class_name, score: item.scores[place], similarity: item.similarities[place], rank: ranks.get(place),
  }));
  showScores({ ...head, classes, timings_ms: {} }, `from ${clock(item.start_s)} to ${clock(item.end_s)}: `);
}

/** Show the whole recording again in place of one of its windows. */
export const backToWhole = () => showWhole(whole);

/** Keep {ecg, answer} of a whole recording, to come back to; null for none. */
function showWhole(found) {
  whole = found;
  $("whole").hidden = true;
  if (found) {
    showEcg(found.ecg);
    showScores(found.answer);
  }
}

/** `part`: which part of the recording they are of, in words. */
function showScores(answer, part = "") {
  idle();
  $("scores").classList.remove("stale");
  $("state").textContent = "";
  $("nothing").hidden = true;
  showBars(answer);
  $("scores-about").textContent = part + aboutScores(answer);
  $("run-facts").replaceChildren(...runFacts(answer));
  $("announce").textContent = spokenScores(answer);
  showWarnings([...(ecg?.warnings ?? []), ...answer.warnings]);
  show({ answer, part });
}

function clearScores(remark = "The scores appear here.") {
  $("scores").classList.remove("stale");
  for (const key of ["state", "scores-about", "announce"]) $(key).textContent = "";
  $("run-facts").replaceChildren();
  clearBars();
  $("nothing").textContent = remark;
  $("nothing").hidden = !remark;
  show(null);
}

function show(found) {
  result = found;
  const isExplained = found && !found.part && found.answer.windows === 1 && !found.answer.head;
  offerExplanation(isExplained ? found.answer : null);
  $("result-tools").hidden = found === null;
}
