// The classes that are asked for: words that are typed, a stored prompt set, or those of a head.

import { call, Problem } from "./api.js";
import { $, element, showProblem } from "./dom.js";
import { headReference, loadModel, model, reference } from "./model.js";
import { begin, clearProblems, onWait, report } from "./tasks.js";

// Classes sent with a file go in the URL, and servers and proxies accept URLs of up to 16 KB.
const LONGEST_QUERY = 12_000;

/** Classes that an example has filled in, which another one may replace; as they stand in the text area. */
let suggestedText = "";
let suggested = null;
let onClasses = () => {};

/** Call `then()` whenever other classes are asked for. */
export function listenForClasses(then) {
  onClasses = then;
  for (const [id, event] of [["labels", "oninput"], ["list", "onchange"], ["template", "oninput"]]) $(id)[event] = changed;
  $("multi-label").onchange = () => onClasses();
  $("suggest").onclick = () => {
    fillIn(suggested);
    changed();
  };
  $("edit-stored").onclick = () => {
    $("labels").value = chosenSet().classes.join("\n");
    $("list").value = "";
    changed();
    $("labels").focus();
  };
  $("save-form").onsubmit = save;
}

const typedLabels = () => [...new Set($("labels").value.split("\n").map((line) => line.trim()).filter(Boolean))];
const chosenSet = () => model?.prompt_sets.find((set) => reference(set) === $("list").value);
const chosenHead = () => model?.heads.find(({ name }) => headReference(name) === $("list").value);
const template = () => $("template").value.trim() || null;

export const hasClasses = () => Boolean($("list").value) || typedLabels().length > 0;

/** What is asked for: {head}, {prompt_set} or {labels, template}, and `multi_label`. */
export function settings() {
  const asked = { head: null, prompt_set: null, labels: [], template: null, multi_label: $("multi-label").checked };
  const head = chosenHead();
  if (head) return { ...asked, head: head.name };
  if ($("list").value) return { ...asked, prompt_set: $("list").value };
  return { ...asked, labels: typedLabels(), template: template() };
}

/** The same as the query of a request. */
export function settingsQuery() {
  const { head, prompt_set, labels, template: pattern, multi_label } = settings();
  if (head) return new URLSearchParams({ head });
  const query = new URLSearchParams();
  if (prompt_set) query.set("prompt_set", prompt_set);
  for (const label of labels) query.append("candidate_labels", label);
  // A value that stands alone is split at its commas; beside an empty one it is kept whole.
  if (labels.length === 1 && labels[0].includes(",")) query.append("candidate_labels", "");
  if (pattern) query.set("hypothesis_template", pattern);
  query.set("multi_label", multi_label);
  return query;
}

/** Throws Problem for a query that is too long to be sent. */
export function checkLength(query) {
  if (String(query).length > LONGEST_QUERY) {
    throw new Problem("This list is too long for one request from this page.", {
      reason: "long_query", hint: "Save it as a prompt set below, then choose it above.",
    });
  }
}

/** Ask for what `wanted` says, as `settings` gives it. Returns whether there is such a prompt set or head. */
export function setSettings({ head, prompt_set, labels, template: pattern, multi_label }) {
  const wanted = head ? headReference(head) : prompt_set ?? "";
  const isKnown = !wanted || [...$("list").options].some((option) => option.value === wanted);
  $("list").value = isKnown ? wanted : "";
  $("labels").value = labels.join("\n");
  $("template").value = pattern ?? "";
  if (pattern) $("advanced").open = true;
  $("multi-label").checked = multi_label;
  showClasses();
  return isKnown;
}

/** Fill in an example's classes, unless the user has typed others. */
export function suggest(labels) {
  if (!labels.length || $("list").value) return;
  if (typedLabels().length && $("labels").value !== suggestedText) return;
  fillIn(labels);
  changed();
}

function fillIn(labels) {
  suggestedText = labels.join("\n");
  $("labels").value = suggestedText;
}

/** Offer the classes of the example on display, if it is one. */
export function showExampleOf(record) {
  suggested = record?.example?.candidate_labels ?? null;
  $("suggest").hidden = !suggested?.length || suggested.join("\n") === typedLabels().join("\n");
}

/** Choose the server's own prompt set, where nothing else is asked for. Returns whether it was chosen. */
export function chooseDefault() {
  if (!model.default_prompt_set || hasClasses()) return false;
  const set = model.prompt_sets.find((item) => [item.name, reference(item)].includes(model.default_prompt_set));
  if (set) $("list").value = reference(set);
  return Boolean(set);
}

export function showClasses() {
  const head = chosenHead();
  const set = head ?? chosenSet();
  const count = set ? set.classes.length : typedLabels().length;
  $("class-count").textContent = count || "";
  for (const id of ["typed", "save-form", "advanced"]) $(id).hidden = Boolean(set);
  $("stored").hidden = !set;
  $("stored-note").textContent = head ? aboutHead(head) : "Each class stands for the wordings stored with this prompt set.";
  $("edit-stored").hidden = Boolean(head);
  $("switch").hidden = Boolean(head); // a head scores each class by itself
  $("stored-classes").replaceChildren(...(set?.classes ?? []).map((name) => element("li", {}, name)));
  $("suggest").hidden = !suggested?.length || suggested.join("\n") === typedLabels().join("\n");
}

function aboutHead({ method, records, patients, dataset_source, synthetic, validation_macro_auroc: auroc }) {
  const data = synthetic ? "synthetic ECGs" : `ECGs of ${patients.toLocaleString("en")} patients of ${dataset_source}`;
  const figure = auroc === null ? "" : ` Macro AUROC ${auroc.toFixed(3)} on the ECGs that chose it, which is optimistic.`;
  return `This head (${method}) learnt from ${records.toLocaleString("en")} labelled ${data}.${figure}`;
}

function changed() {
  showClasses();
  $("saved").textContent = "";
  showProblem($("save-problem"), null);
  onClasses();
}

async function save(event) {
  event.preventDefault();
  const signal = begin("save");
  clearProblems("save-problem");
  const body = { candidate_labels: typedLabels() };
  if (template()) body.hypothesis_template = template();
  $("saved").textContent = "Saving…";
  try {
    const { answer, status } = await call(`v1/prompt-sets/${encodeURIComponent($("save-name").value)}`, {
      method: "PUT", json: body, signal, onWait,
    });
    $("saved").textContent = status === 201 ? `Saved as ${answer.prompt_set}.` : `Unchanged: this is ${answer.prompt_set}.`;
    await loadModel(showClasses);
  } catch (error) {
    if (!signal.aborted) $("saved").textContent = "";
    report(error, signal, "save-problem", () => $("save-form").requestSubmit());
  }
}
