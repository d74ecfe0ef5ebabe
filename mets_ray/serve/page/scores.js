// Scores as bars, with the details below them.

import { $, element } from "./dom.js";

/** Bars for a response of /v1/zero-shot, highest score first. Rows are reused by class, so bars grow and shrink. */
export function showBars(answer) {
  const list = $("bars");
  const kept = new Map([...list.children].map((row) => [row.dataset.className, row]));
  const sorted = [...answer.classes].sort((a, b) => a.rank - b.rank);
  list.replaceChildren(...sorted.map((item) => update(kept.get(item.class_name) ?? row(item), item)));
  $("scale").hidden = false;
}

export function clearBars() {
  $("bars").replaceChildren();
  $("scale").hidden = true;
}

function row({ class_name }) {
  const made = element(
    "li",
    { className: "score" },
    element("span", { className: "rank", ariaHidden: "true" }),
    element("span", { className: "name" }, class_name),
    element("span", { className: "track", ariaHidden: "true" }, element("span", { className: "bar" })),
    element("span", { className: "value" }),
    element("span", { className: "similarity" }),
  );
  made.dataset.className = class_name;
  return made;
}

function update(made, { score, similarity, rank }) {
  made.dataset.score = score;
  made.classList.toggle("first", rank === 1);
  made.querySelector(".rank").textContent = rank;
  made.querySelector(".bar").style.setProperty("--share", score);
  made.querySelector(".value").replaceChildren(element("span", { className: "unseen" }, "score "), rounded(score));
  made.querySelector(".similarity").replaceChildren(
    element("span", { className: "unseen" }, "similarity "),
    signed(similarity, 3),
  );
  return made;
}

/** How the scores were computed, in a few words. */
export function aboutScores(answer) {
  const count = answer.classes.length;
  if (answer.multi_label) return "each class by itself; the scores need not sum to 1";
  if (count === 1) return "a single class always scores 1: add another, or switch on independent scores";
  return `softmax over ${count} classes; the scores sum to 1`;
}

/** For a screen reader. */
export function spokenScores(answer) {
  const best = [...answer.classes].sort((a, b) => a.rank - b.rank).slice(0, 3);
  return `Scores: ${best.map((item) => `${item.class_name} ${item.score.toFixed(2)}`).join(", ")}.`;
}

/** Model version, classes and timings of a response. */
export function runFacts(answer) {
  const stages = Object.entries(answer.timings_ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`);
  const facts = [["model", answer.model_version]];
  if (answer.prompt_set) facts.push(["prompt set", answer.prompt_set]);
  else if (answer.hypothesis_template) facts.push(["sentence", `“${answer.hypothesis_template}”`]);
  if (stages.length) facts.push(["milliseconds", stages.join(", ")]);
  return facts.map(([name, fact]) => element("span", {}, element("b", {}, name), ` ${fact}`));
}

/** The facts of /v1/model as [term, words] pairs. */
export function modelFacts(model) {
  const { signal, text_model: text, training_data: data } = model;
  return [
    ["Version", model.model_version],
    ["Trained on", trainingData(data)],
    ["Signal", `${signal.leads.length} leads, ${signal.duration_s} s at ${signal.sampling_rate_hz} Hz`],
    ["Language model", `${text.name}, ${text.pooling} pooling, frozen`],
    ["Runs on", model.device],
    ["Intended use", model.intended_use],
  ].filter(([, words]) => words);
}

function trainingData({ source, synthetic, train_folds: folds, dataset_sha256: sha256 }) {
  const facts = [synthetic ? "synthetic ECGs, no patients" : source];
  if (folds?.length) facts.push(`folds ${folds.join(", ")}`);
  if (sha256) facts.push(`data set ${sha256.slice(0, 8)}`);
  return facts.join("; ");
}

/** Scores too small for three decimals are not zero. */
const rounded = (score) => (score > 0 && score < 0.0005 ? "<0.001" : score.toFixed(3));
const signed = (value, digits) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
