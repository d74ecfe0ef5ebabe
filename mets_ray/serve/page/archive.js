// The page of the archive: words, a report or an ECG become ECGs that are like it. This module connects the others.

import { call, callLines, Problem } from "./api.js";
import { listenForCards, showChosen, showHits } from "./archive-cards.js";
import { csvOf, download, listenForList } from "./archive-list.js";
import { limitTerms, listenForTerms, terms, termsInWords } from "./archive-query.js";
import { forgetTraces } from "./archive-traces.js";
import { listenForViewer, openViewer, showViewerTools } from "./archive-viewer.js";
import { $, element, sentence, showProblem } from "./dom.js";
import { askToken, dropRetry, useToken } from "./token.js";

const COHORT_S = 120;
const NEAREST_REPORTS = 3;

/** {send, words}: how the results on display were asked for; `send(changes)` asks again. */
let asked = null;
let cursor = null;
let waiting = new AbortController();
let found = 0;
/** Whether the server gives the reports of similar ECGs. */
let findsReports = false;

async function loadArchive() {
  try {
    const { answer } = await call("v1/archive");
    dropRetry($("archive-problem"));
    showProblem($("archive-problem"), null);
    findsReports = answer.finds_reports;
    limitTerms(answer.limits.archive_max_words);
    $("where").maxLength = answer.limits.archive_max_where_chars;
    $("where-note").textContent = `Columns: ${answer.columns.map(({ name }) => name).join(", ")}.`;
    const facts = {
      Records: `${answer.records.toLocaleString("en")} of ${answer.patients.toLocaleString("en")} patients`,
      Model: answer.model_version,
      Reports: answer.shows_reports ? "shown" : "not shown on this server",
    };
    $("archive-facts").replaceChildren(
      ...Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  } catch (error) {
    refused(error, $("archive-problem"), loadArchive);
  }
}

/** Show what went wrong; ask for a token where that is what is missing. */
function refused(error, slot, retry) {
  if (error.name === "AbortError") return;
  if (error.status === 401 || error.reason === "wrong_scope") askToken(error, slot, retry);
  else showProblem(slot, error instanceof Problem ? error : new Problem(`The page failed: ${error.message}.`), retry);
}

/** What every question says beside what it asks. */
const common = () => ({
  where: $("where").value.trim() || null, one_per_patient: $("one-per-patient").checked,
});

/** `atFirst`: what is asked for once, and not with each further page. */
const askJson = (question, words, atFirst = {}) => {
  const kept = { ...common(), ...question };
  const send = (changes, options) =>
    call("v1/search", { method: "POST", json: { ...kept, ...(changes.cursor ? changes : atFirst) }, ...options });
  return ask({ send, words, question: kept });
};

function searchWords() {
  const some = terms();
  if (!some.length) {
    showProblem($("search-problem"), new Problem("No words were given.", { hint: "Type what the ECGs should show." }));
    $("terms").querySelector("input").focus();
    return;
  }
  askJson({ words: some }, termsInWords(some));
}

const searchLike = (hit) =>
  askJson({ record_id: hit.record_id, source: hit.columns.source }, `the ECG ${hit.record_id}`, reportsToo());

/** For questions by an ECG, on their first page. */
const reportsToo = () => (findsReports ? { nearest_reports: NEAREST_REPORTS } : {});

function searchFiles() {
  const files = [...$("files").files];
  $("files").value = ""; // the same file may be chosen again
  if (!files.length) return;
  const query = new URLSearchParams(Object.entries(common()).filter(([, value]) => value !== null));
  const send = (changes, options) => {
    const form = new FormData();
    for (const file of files) form.append("file", file);
    const all = new URLSearchParams([...query, ...Object.entries(changes.cursor ? changes : reportsToo())]);
    return call(`v1/search?${all}`, { method: "POST", form, ...options });
  };
  ask({ send, words: `the ECG in ${files.map(({ name }) => name).join(" + ")}`, question: null });
}

function ask(question) {
  [asked, cursor] = [question, null];
  $("more").hidden = true; // until this search has answered
  showProblem($("cohort-problem"), null);
  $("cohort-count").textContent = "";
  return answer(false);
}

async function answer(isMore) {
  if (isMore && cursor === null) return;
  waiting.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  $("results").classList.add("stale");
  $("state").textContent = "Searching…";
  showProblem($("search-problem"), null);
  try {
    const wait = (seconds) => ($("state").textContent = `Busy, trying again in ${Math.ceil(seconds)} s…`);
    const { answer: got } = await asked.send(isMore ? { cursor } : {}, { signal, onWait: wait });
    dropRetry($("search-problem"));
    show(got, isMore);
  } catch (error) {
    if (error.name === "AbortError") return;
    refused(error, $("search-problem"), () => answer(isMore));
    if (!isMore) show({ hits: [], next_cursor: null, warnings: [], records: 0 }, false);
  }
  $("state").textContent = "";
  $("results").classList.remove("stale");
}

function show({ hits, next_cursor, nearest_reports: reports, warnings, records }, isMore) {
  if (!isMore) showReports(reports ?? []);
  found = (isMore ? found : 0) + hits.length;
  const first = showHits(hits.map((hit, place) => ({ ...hit, place: found - hits.length + place })), isMore);
  cursor = next_cursor;
  $("more").hidden = cursor === null;
  $("nothing").hidden = found > 0;
  $("nothing").textContent = records ? "No ECG in the archive matches." : "The ECGs appear here, the most similar first.";
  $("results-about").textContent = records ? `${found} of ${records.toLocaleString("en")} ECGs, by similarity to ${asked.words}` : "";
  $("warnings").replaceChildren(...warnings.map(({ message }) => element("li", {}, ...sentence(message))));
  $("cohort-form").hidden = found === 0 || !asked.question;
  if (hits.length) {
    $("above").value = (Math.floor(hits.at(-1).similarity * 1000) / 1000).toFixed(3); // no hit shown is above it
    $("announce").textContent = `${found} ${found === 1 ? "ECG" : "ECGs"} found.`;
  }
  if (isMore) first?.focus();
}

/** Other ECGs' reports, each with what it is said to be. */
function showReports(reports) {
  $("reports").hidden = reports.length === 0;
  $("reports-note").textContent = reports[0]?.notice ?? "";
  $("report-list").replaceChildren(...reports.map(({ report, similarity, record_id }) => element("li", {}, report, " ",
    element("span", { className: "note" }, `ECG ${record_id}, similarity ${similarity.toFixed(3)}`))));
}

/** Count the whole archive; `isSaved`: also save the ids. */
async function cohort(isSaved) {
  if (!$("cohort-form").reportValidity()) return;
  const { one_per_patient, ...question } = asked.question;
  const json = { ...question, above: Number($("above").value), format: isSaved ? "ndjson" : "count" };
  showProblem($("cohort-problem"), null);
  $("cohort-count").textContent = "Counting…";
  try {
    if (!isSaved) {
      const { answer: got } = await call("v1/cohort", { method: "POST", json, timeout_s: COHORT_S });
      $("cohort-count").textContent = inWords(got);
      return;
    }
    const rows = [];
    let summary = null;
    const onLine = (line) => {
      if (line.line === "summary") summary = line;
      else if (line.line === "record") rows.push([line.record_id, line.patient_id, line.source, line.similarity]);
    };
    await callLines("v1/cohort", { method: "POST", json, onLine, timeout_s: COHORT_S });
    download("ecg-cohort.csv", "text/csv", csvOf(["record_id", "patient_id", "source", "similarity"], rows));
    $("cohort-count").textContent = inWords(summary);
  } catch (error) {
    $("cohort-count").textContent = "";
    refused(error, $("cohort-problem"), () => cohort(isSaved));
  }
}

const inWords = ({ count, patients }) =>
  `${count.toLocaleString("en")} ${count === 1 ? "ECG" : "ECGs"}`
  + (patients === null ? "." : ` of ${patients.toLocaleString("en")} ${patients === 1 ? "patient" : "patients"}.`);

listenForTerms();
listenForCards({ open: openViewer, like: searchLike });
listenForViewer({ like: searchLike });
listenForList({
  open: openViewer,
  change: () => {
    showChosen();
    showViewerTools();
  },
});
$("search-form").onsubmit = (event) => {
  event.preventDefault();
  searchWords();
};
$("report-form").onsubmit = (event) => {
  event.preventDefault();
  askJson({ report: $("report").value.trim() }, "the report");
};
$("files").onchange = searchFiles;
$("file-form").onsubmit = (event) => event.preventDefault();
$("more").onclick = () => answer(true);
$("cohort-form").onsubmit = (event) => {
  event.preventDefault();
  cohort(false);
};
$("cohort-save").onclick = () => cohort(true);
$("token-form").onsubmit = async (event) => {
  forgetTraces();
  await useToken(event);
};
loadArchive();
