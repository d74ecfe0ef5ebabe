// From what was chosen to an ECG on display: adds it to the list, asks for what it does not state, has the server read it.

import { call, Problem } from "./api.js";
import { showExampleOf, suggest } from "./classes.js";
import { $ } from "./dom.js";
import { showEcg } from "./ecg.js";
import { askFacts } from "./facts-form.js";
import { copied, groupFiles, needsFacts } from "./files.js";
import { model } from "./model.js";
import { add, MOST_RECORDS, onDisplay, select, showList } from "./records.js";
import { clearResult, score, upload, withQuery } from "./scoring.js";
import { begin, busy, clearProblems, idle, onWait, report, stop } from "./tasks.js";

/** Add the ECGs in `files` to the list, and show the first of them. */
export async function openFiles(files) {
  if (!files.length) return;
  const signal = begin("open");
  clearProblems("list-problem");
  busy("Reading the files…");
  try {
    const groups = await groupFiles(files, model?.limits.max_timeline_bytes ?? Infinity);
    const copies = [];
    for (const group of groups.slice(0, MOST_RECORDS)) copies.push(await inMemory(group));
    signal.throwIfAborted();
    addAndShow(copies, groups.length);
  } catch (error) {
    if (!signal.aborted) idle();
    report(error, signal, "list-problem", () => openFiles(files));
  }
}

async function inMemory(group) {
  if (group.problem) return { ...group, files: null };
  try {
    return { ...group, files: await copied(group.files) };
  } catch (error) {
    return { ...group, files: null, problem: { error } };
  }
}

/** Add what there is room for, of `wanted` ECGs, and show the first. */
export function addAndShow(some, wanted) {
  const added = add(some);
  if (added.length) select(added[0]);
  if (added.length > 1) $("record-list").focus();
  if (added.length < wanted) {
    idle();
    report(new Problem(`${wanted - added.length} of ${wanted} ECGs were not opened: the list is full.`, {
      hint: `It holds ${MOST_RECORDS} ECGs, or 512 MB of files. Remove some of them`,
    }), null, "list-problem");
  }
}

/** Display `record` of the list; null for none. */
export function show(record) {
  stop("load", "facts");
  clearProblems("source-problem");
  idle();
  clearResult();
  showEcg(null);
  $("facts-form").hidden = true;
  showSource(record);
  showExampleOf(record);
  if (!record) return;
  if (record.problem) report(record.problem.error, null, "source-problem", record.problem.retry);
  else if (record.isRead) showRead(record);
  else if (needsFacts(record.files)) changeFacts();
  else load(record);
}

function showSource(record) {
  $("source-name").textContent = record?.example ? "" : record?.name ?? ""; // those are in a list of their own
  $("credit").textContent = record?.example?.credit ? `ECG: ${record.example.credit}` : "";
  $("example").value = record?.example?.name ?? "";
  $("remove").hidden = record === null;
  $("change-facts").hidden = !record || !needsFacts(record.files);
  $("empty").hidden = record !== null;
}

function showRead(record) {
  showEcg(record.ecg);
  score(0);
}

/** Ask for unit, rate and leads of the record on display, at first or once more. */
export async function changeFacts() {
  const record = onDisplay();
  const signal = begin("facts");
  try {
    await askFacts(record, signal, (query) =>
      load(Object.assign(record, { query, problem: null, kept: null, isRead: false })));
  } catch (error) {
    report(error, signal, "source-problem", changeFacts);
  }
}

export function cancelFacts() {
  if (onDisplay().isRead) $("facts-form").hidden = true;
  else $("remove").click();
}

async function load(record) {
  const signal = begin("load");
  clearProblems("source-problem");
  clearResult();
  showEcg(null);
  try {
    if (!record.files) await fetchExample(record, signal);
    busy("Reading the ECG…");
    const bytes = record.files.reduce((sum, file) => sum + file.size, 0);
    record.isLong = bytes > (model?.limits.max_body_bytes ?? Infinity);
    record.ecg = record.isLong ? null : await firstWindow(record, signal);
    Object.assign(record, { isRead: true, problem: null });
    $("facts-form").hidden = true;
    idle();
    showRead(record);
  } catch (error) {
    if (!signal.aborted) idle();
    const retry = () => load(record);
    const shown = report(error, signal, "source-problem", retry);
    // What another try could change is not kept.
    const isFinal = shown && !shown.canRetry && shown.status !== 401 && !needsFacts(record.files);
    if (isFinal) record.problem = { error: shown, retry };
    showList();
  }
}

async function fetchExample(record, signal) {
  busy("Loading the example…");
  const { name, candidate_labels } = record.example;
  const { answer } = await call(`v1/examples/${encodeURIComponent(name)}`, { signal, onWait });
  suggest(candidate_labels);
  record.files = [new File([JSON.stringify(answer)], `${name}.json`)];
}

/** The answer of /v1/ecg; null for a recording that is longer than it takes, which has scores over time only. */
async function firstWindow(record, signal) {
  try {
    const sent = { method: "POST", form: upload(record), signal, onWait };
    const { start_s, ...first } = (await call(withQuery("v1/ecg", record.query), sent)).answer;
    return start_s > 0 ? { ...first, start_s } : first; // of one that begins at the start, the time goes without saying
  } catch (error) {
    if (error.reason !== "too_long") throw error;
    record.isLong = true;
    return null;
  }
}
