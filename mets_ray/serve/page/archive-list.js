// The list that is built of what was found. It lives in this tab's memory, and leaves it as a file of ids.

import { keyOf } from "./archive-traces.js";
import { $, element } from "./dom.js";

/** Hits by `keyOf`, in the order in which they were added. */
const chosen = new Map();
let onChange = () => {};
let onOpen = () => {};

/** `change()` is called after each change; `open(hit)` for one that is to be seen. */
export function listenForList({ change, open }) {
  [onChange, onOpen] = [change, open];
  $("export").onclick = () => download("ecg-ids.csv", "text/csv", csv());
  $("clear-list").onclick = () => {
    chosen.clear();
    show();
    $("search").focus();
  };
}

export const isChosen = (hit) => chosen.has(keyOf(hit));

export function choose(hit, isWanted) {
  if (isWanted) chosen.set(keyOf(hit), hit);
  else chosen.delete(keyOf(hit));
  show();
}

/** Save a file in the browser's way. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function csvOf(names, rows) {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [names, ...rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

function csv() {
  const rows = [...chosen.values()].map(({ record_id, patient_id, columns }) => [record_id, patient_id, columns.source]);
  return csvOf(["record_id", "patient_id", "source"], rows);
}

function show() {
  const hits = [...chosen.values()];
  $("list-count").textContent = hits.length;
  $("export").hidden = $("clear-list").hidden = hits.length === 0;
  $("list-note").hidden = hits.length > 0;
  $("list").replaceChildren(...hits.map((hit, place) => {
    const open = element("button", { type: "button", className: "plain open", onclick: () => onOpen(hit) }, hit.record_id);
    open.setAttribute("aria-label", `Open ECG ${hit.record_id}`);
    const remove = element("button", { type: "button", className: "plain" }, "Remove");
    remove.setAttribute("aria-label", `Remove ECG ${hit.record_id} from the list`);
    remove.onclick = () => {
      choose(hit, false);
      const rows = $("list").children;
      (rows[Math.min(place, rows.length - 1)]?.lastChild ?? $("search")).focus();
    };
    return element("li", {}, open, remove);
  }));
  onChange();
}
