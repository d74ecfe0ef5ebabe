// The ECGs that the service offers for trying it: real ones first, with their credit.

import { call } from "./api.js";
import { $, element, setOptions } from "./dom.js";
import { addAndShow } from "./reading.js";
import { exampleRecord, select } from "./records.js";
import { begin, clearProblems, onWait, report } from "./tasks.js";

const MOST_BUTTONS = 8;

let examples = [];

export async function loadExamples() {
  const signal = begin("examples");
  clearProblems("list-problem");
  try {
    ({ answer: { examples } } = await call("v1/examples", { signal, onWait }));
    showExamples();
  } catch (error) {
    report(error, signal, "list-problem", loadExamples);
  }
}

/** Real ones come first, as the service lists them; each group has one credit. */
function showExamples() {
  const groups = Object.entries(Object.groupBy(examples, ({ credit }) => credit ?? ""));
  const titles = groups.map(([, group]) => group.map(({ name, title }) => [name, title]));
  setOptions($("example"), Object.fromEntries(groups.map(([credit], place) => [credit || "Synthetic ECGs", titles[place]])));
  const [credit, first] = groups[0] ?? ["", []];
  $("empty-examples-label").textContent = credit
    ? "Or start with one of these real ECGs:" : "Or start with one of these synthetic ECGs:";
  $("empty-examples-credit").textContent = credit;
  const few = credit ? first.slice(0, MOST_BUTTONS) : first.filter((_, i) => i % Math.ceil(first.length / 4) === 0);
  const open = (some) => () => openExamples(some);
  $("empty-examples").querySelector(".choices").replaceChildren(
    ...few.map((example) =>
      element("button", { type: "button", onclick: open([example]) }, example.title.replace(/ \([^)]*\)$/, ""))),
  );
  $("all-examples").hidden = few.length < 2;
  $("all-examples").textContent = `Open all ${few.length}`;
  $("all-examples").onclick = open(few);
  $("empty-examples").hidden = !few.length;
  $("example").onchange = () => openExamples(examples.filter(({ name }) => name === $("example").value));
}

/** Add those that are not in the list yet; show the first of them, or the one that is there. */
function openExamples(some) {
  if (!some.length) return;
  clearProblems("list-problem");
  const before = some.map(({ name }) => exampleRecord(name)).find(Boolean);
  const missing = some.filter(({ name }) => !exampleRecord(name));
  if (missing.length) addAndShow(missing.map((example) => ({ name: example.title, example })), missing.length);
  else select(before);
}
