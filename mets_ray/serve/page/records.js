// The ECGs that are open: a list of bounded size in this tab's memory, one of them on display.

import { $, element } from "./dom.js";

export const MOST_RECORDS = 40;
const MOST_BYTES = 512 * 2 ** 20; // of files
const MOST_KEPT_BYTES = 64 * 2 ** 20; // of scores over time, which hold the signals of their windows

/**
 * {id, name, files, example, query, ecg, isRead, isLong, problem, kept}. `files`: copies in memory; null for an example
 * that was not fetched yet. `example`: its entry in the service's list, or null. `query`: the facts that its file does not
 * state. `ecg`: response of /v1/ecg. `problem`: {error, retry} of an ECG that cannot be read. `kept`: its last result,
 * {settings, answer, over, words}, for the settings that it was computed with.
 */
const records = [];
let shown = null;
let lastId = 0;
let onSelect = () => {};
let settings = "";

/** The record on display; null for none. */
export const onDisplay = () => shown;

export const exampleRecord = (name) => records.find((record) => record.example?.name === name);

/** Call `then(record)` when another record is to be displayed; null for none. */
export function listenForRecords(then) {
  onSelect = then;
  $("record-list").onkeydown = (event) => {
    const place = records.indexOf(shown);
    const to = { ArrowUp: place - 1, ArrowDown: place + 1, Home: 0, End: records.length - 1 }[event.key];
    if (event.key === "Delete") removeShown();
    else if (to === undefined) return;
    else if (records[to]) select(records[to]);
    event.preventDefault();
  };
  $("record-list").onclick = (event) => {
    const row = event.target.closest("[role=option]");
    if (row) select(records.find((record) => `record-${record.id}` === row.id));
  };
  $("remove").onclick = removeShown;
  $("remove-all").onclick = () => {
    records.length = 0;
    select(null);
    $("files").focus();
  };
}

/** Add what there is room for; returns the added records. Each is {name, files, example, problem}. */
export function add(some) {
  const before = records.length;
  let bytes = records.reduce((sum, record) => sum + sizeOf(record), 0);
  for (const one of some) {
    bytes += sizeOf(one);
    if (records.length >= MOST_RECORDS || (bytes > MOST_BYTES && records.length > 0)) break;
    records.push({
      files: null, example: null, problem: null, ...one,
      id: (lastId += 1), query: new URLSearchParams(), ecg: null, isRead: false, isLong: false, kept: null,
    });
  }
  return records.slice(before);
}

export function select(record) {
  shown = record;
  onSelect(record);
  showList();
}

function removeShown() {
  const place = records.indexOf(shown);
  if (place < 0) return;
  records.splice(place, 1);
  select(records[Math.min(place, records.length - 1)] ?? null);
  (records.length > 1 ? $("record-list") : $("files")).focus();
}

/** Keep a result. Scores over time of other records are dropped, the oldest first, when they take too much memory. */
export function keep(record, kept) {
  record.kept = kept;
  const others = records.filter((one) => one !== record && one.kept?.over).sort((a, b) => a.kept.at - b.kept.at);
  let bytes = [record, ...others].reduce((sum, one) => sum + (one.kept.over?.bytes ?? 0), 0);
  kept.at = performance.now();
  for (const one of others) {
    if (bytes <= MOST_KEPT_BYTES) break;
    bytes -= one.kept.over.bytes;
    one.kept.over = null;
  }
  showList();
}

/** Say which settings results are wanted for; those for others are not shown in the list. */
export function wantResultsFor(wanted) {
  settings = wanted;
  showList();
}

export function showList() {
  const list = $("record-list");
  $("records").hidden = records.length < 2;
  $("record-count").textContent = records.length;
  list.replaceChildren(...records.map(row));
  if (shown) list.setAttribute("aria-activedescendant", `record-${shown.id}`);
  const chosen = list.querySelector("[aria-selected=true]");
  if (!chosen) return;
  // Not scrollIntoView, which would scroll the page, too.
  const [top, bottom] = [chosen.offsetTop, chosen.offsetTop + chosen.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
}

function row(record) {
  return element("li", { id: `record-${record.id}`, role: "option", ariaSelected: String(record === shown) },
    element("span", { className: "record-name" }, record.name),
    element("span", { className: "record-state" }, stateOf(record)));
}

function stateOf({ problem, kept }) {
  if (problem) return "cannot be used";
  if (!kept) return "";
  return kept.settings === settings ? kept.words : "scored with other words or options";
}

const sizeOf = ({ files }) => (files ?? []).reduce((sum, file) => sum + file.size, 0);
