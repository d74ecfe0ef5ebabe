// What is asked for in words: up to a few lines, each with a weight, or with "not".

import { $, element } from "./dom.js";

const WEIGHTS = [[0.5, "weight ½"], [1, "weight 1"], [2, "weight 2"]];
let most = 16;

/** Begin with one empty line. */
export function listenForTerms() {
  addTerm();
  $("add-term").onclick = () => addTerm().querySelector("input").focus();
}

/** As the server allows; see `limits` in /v1/archive. */
export function limitTerms(words) {
  most = words;
  showTools();
}

/** The lines that hold words: [{text, weight, not}]. */
export function terms() {
  return [...$("terms").children]
    .map((row) => ({
      text: row.querySelector(".words").value.trim(),
      weight: Number(row.querySelector("select").value),
      not: row.querySelector(".not").checked,
    }))
    .filter(({ text }) => text);
}

/** In a few words, for people. */
export const termsInWords = (some) =>
  some.map(({ text, weight, not }) => `${not ? "not " : ""}“${text}”${weight === 1 ? "" : ` × ${weight}`}`).join(", ");

function addTerm() {
  const number = $("terms").children.length + 1;
  const words = element("input", {
    type: "text", className: "words", autocomplete: "off", spellcheck: false, autocapitalize: "off",
    placeholder: number === 1 ? "complete left bundle branch block" : "first degree AV block",
  });
  words.setAttribute("aria-label", number === 1 ? "Words" : `Words, line ${number}`);
  const weight = element("select", { autocomplete: "off" },
    ...WEIGHTS.map(([value, text]) => element("option", { value, selected: value === 1 }, text)));
  weight.setAttribute("aria-label", `Weight of line ${number}`);
  const not = element("input", { type: "checkbox", className: "not", autocomplete: "off" });
  const row = element("li", { className: "term" }, words, weight, element("label", { className: "negation" }, not, "not"));
  if (number > 1) {
    const remove = element("button", { type: "button", className: "plain" }, "Remove");
    remove.setAttribute("aria-label", `Remove line ${number}`);
    remove.onclick = () => {
      const before = row.previousElementSibling;
      row.remove();
      before.querySelector("input").focus();
      showTools();
    };
    row.append(remove);
  }
  $("terms").append(row);
  showTools();
  return row;
}

function showTools() {
  const rows = $("terms").children;
  $("add-term").hidden = rows.length >= most;
  $("terms-note").hidden = rows.length < 2;
  for (const row of rows) {
    for (const part of row.querySelectorAll("select, .negation")) part.hidden = rows.length < 2;
  }
}
