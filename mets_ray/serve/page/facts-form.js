// Unit, rate and leads of a file that does not state them. Nothing is guessed.

import { $ } from "./dom.js";
import { contentOf, ending } from "./files.js";

const USUAL_LEADS = "I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6";

/** Ask for the facts of `record`, with those that it has filled in; `then(query)` is called when they are there. */
export async function askFacts(record, signal, then) {
  const [file] = record.files;
  const content = await contentOf(file);
  signal.throwIfAborted();
  const hasNames = ending(file.name) === "csv";
  $("facts-form").reset();
  $("unit").value = record.query.get("unit") ?? "";
  $("rate").value = record.query.get("sampling_rate_hz") ?? "";
  $("leads").value = (record.query.get("leads") ?? "").replaceAll(",", ", ");
  $("facts-file").textContent = file.name;
  $("facts-content").textContent = content;
  $("leads-field").hidden = hasNames;
  $("leads").required = ending(file.name) === "npy";
  $("usual-leads").onclick = () => ($("leads").value = USUAL_LEADS);
  $("facts-form").onsubmit = (event) => {
    event.preventDefault();
    const query = new URLSearchParams({ unit: $("unit").value, sampling_rate_hz: $("rate").value });
    const leads = hasNames ? [] : $("leads").value.split(/[\s,;]+/).filter(Boolean);
    if (leads.length) query.set("leads", leads.join(","));
    then(query);
  };
  $("facts-form").hidden = false;
  $("unit").focus();
}
