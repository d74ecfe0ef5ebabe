// Why a class has its score: shading under the traces, and training statements. Asked for with a button, because it
// costs the server some hundred windows.

import { $, element } from "./dom.js";

const MOST_CLASSES = 16; // of one request: see `explain_classes` in the API's documentation
const MOST_CHARACTERS = 3000; // of their names, which go in the URL
const BAND_MM = 12; // above and below the base line
const DARKEST = 0.6;
const FAINTEST = 0.06; // shares of the largest drop below it are noise, and are not drawn
const NAMED = 3;

let hooks = null; // {ask(names): explanation, redraw(), failed(error)}
let classes = []; // of the scores on display, best first
let wanted = ""; // the class that was chosen last, here or for scores before
let found = null; // the explanation of the scores on display
let isHidden = false;

/** `ask(names)` gets an explanation, `redraw()` draws the paper again, `failed(error, retry)` shows a problem. */
export function listenForExplain(given) {
  hooks = given;
  $("why-ask").onclick = () => (covers() ? toggle() : explain());
  $("why-class").onchange = () => {
    wanted = $("why-class").value;
    isHidden = false;
    if (found && !covers()) explain();
    else show();
  };
  $("bars").addEventListener("click", ({ target }) => {
    const row = target.closest(".ask-why")?.closest(".score");
    if (row) explainClass(row.dataset.className);
  });
}

/** Show why the class that was picked among the scores has its own. */
function explainClass(name) {
  wanted = name;
  isHidden = false;
  $("why-class").value = name;
  if (covers()) show();
  else explain();
  $("why").scrollIntoView({ block: "nearest" });
}

/** Offer to explain the scores of `answer`, an ECG of one window; with null nothing is left of any explanation. */
export function offerExplanation(answer) {
  const had = found !== null;
  found = null;
  isHidden = false;
  classes = answer ? [...answer.classes].sort((a, b) => a.rank - b.rank).map(({ class_name }) => class_name) : [];
  $("why").hidden = classes.length === 0;
  $("bars").classList.toggle("can-explain", classes.length > 0);
  $("why-class").replaceChildren(...classes.map((name) => element("option", { value: name }, name)));
  $("why-class").value = classes.includes(wanted) ? wanted : classes[0] ?? "";
  $("why-state").textContent = "";
  $("why-problem").replaceChildren();
  show(had);
}

const chosenReasons = () => found?.classes.find(({ class_name }) => class_name === $("why-class").value);
const covers = () => Boolean(chosenReasons());

function toggle() {
  isHidden = !isHidden;
  show();
}

async function explain() {
  const offered = classes;
  const names = [$("why-class").value];
  for (const name of classes) {
    const characters = [...names, name].join("").length;
    if (!names.includes(name) && names.length < MOST_CLASSES && characters < MOST_CHARACTERS) names.push(name);
  }
  $("why-state").textContent = "Explaining…";
  $("why-problem").replaceChildren();
  try {
    const explanation = await hooks.ask(names);
    if (offered !== classes) return; // other scores are on display by now
    found = explanation;
    $("why-state").textContent = "";
    show();
  } catch (error) {
    if (offered !== classes) return;
    $("why-state").textContent = "";
    hooks.failed(error, explain);
  }
}

function show(redraws = true) {
  const reasons = chosenReasons();
  $("why-ask").textContent = !reasons ? "Explain" : isHidden ? "Show" : "Hide";
  $("why-found").hidden = !reasons || isHidden;
  if (reasons) {
    $("why-parts").textContent = inWords(reasons);
    $("why-lists").replaceChildren(...lists(reasons));
  }
  if (redraws) hooks?.redraw();
}

/** The parts that carry most of the class, for those who do not see the shading. */
function inWords({ class_name, lead_drops, segment_drops }) {
  const most = (drops, name) =>
    drops.map((drop, place) => [drop, name(place)]).filter(([drop]) => drop > 0)
      .sort((a, b) => b[0] - a[0]).slice(0, NAMED).map(([drop, words]) => `${words} (${drop.toFixed(3)})`).join(", ");
  const leads = most(lead_drops, (place) => found.leads[place]);
  const step = found.segment_s;
  const at = (place) => (found.start_s + place * step).toFixed(1);
  const times = most(segment_drops, (place) => `${at(place)} to ${at(place + 1)} s`);
  return `Without these, the similarity of ${class_name} falls most: leads ${leads || "none"}; times ${times || "none"}. `
    + `${found.windows_encoded} windows were compared.`;
}

function lists({ class_name, near, far, no_statements }) {
  const nearest = found.no_statements ? [] : [list("Training statements nearest to this ECG", found.nearest)];
  if (no_statements) return [...nearest, element("p", { className: "note" }, `No statements: ${no_statements.message}.`)];
  return [
    ...nearest,
    list(`For: statements like ${class_name} that it is near to`, near),
    list(`Against: statements like ${class_name} that it is far from`, far),
  ];
}

function list(title, statements) {
  const rows = statements.map(({ text, patients, similarity }) =>
    element("li", {}, text, element("span", { className: "note" },
      ` ${similarity.toFixed(2)}, ${patients.toLocaleString("en")} patients`)));
  const empty = element("p", { className: "note" }, "none");
  return element("div", {}, element("h4", {}, title), rows.length ? element("ul", {}, ...rows) : empty);
}

/** Shade `segments` of the paper, {lead, x_mm, base_mm, from_s, to_s}, by what the chosen class loses without them. */
export function shade(context, segments, mm, mm_per_s) {
  const reasons = chosenReasons();
  if (!reasons || isHidden) return;
  const style = getComputedStyle(context.canvas);
  const most = Math.max(...reasons.drops.flat().map(Math.abs)) || 1;
  const step = found.segment_s;
  context.save();
  for (const { lead, x_mm, base_mm, from_s, to_s } of segments) {
    for (const [place, drop] of (reasons.drops[found.leads.indexOf(lead)] ?? []).entries()) {
      const [begin_s, end_s] = [Math.max(place * step, from_s), Math.min((place + 1) * step, to_s)];
      const share = Math.abs(drop) / most;
      if (end_s <= begin_s || share < FAINTEST) continue;
      context.globalAlpha = DARKEST * share;
      context.fillStyle = style.getPropertyValue(drop > 0 ? "--for" : "--against").trim();
      const x = (x_mm + (begin_s - from_s) * mm_per_s) * mm;
      context.fillRect(x, (base_mm - BAND_MM) * mm, (end_s - begin_s) * mm_per_s * mm, 2 * BAND_MM * mm);
    }
  }
  context.restore();
}
