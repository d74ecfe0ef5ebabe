// Scores as bars, with the details below them. Of independent scores, what is calibrated is shown as its probability.

import { $, element } from "./dom.js";

/** Bars for a response of /v1/zero-shot, highest first. Rows are reused by class, so bars grow and shrink. */
export function showBars(answer) {
  const list = $("bars");
  list.replaceChildren(...rowsOf(answer, new Map([...list.children].map((made) => [made.dataset.className, made]))));
  $("scale-value").textContent = hasProbabilities(answer) ? "prob." : "score";
  $("scale-similarity").textContent = answer.head ? "logit" : hasZScores(answer) ? "z-score" : "similarity";
  $("scale").hidden = false;
}

/** The rows of `answer`, highest first; `kept`: rows to use again, by class. */
export function rowsOf(answer, kept = new Map()) {
  return inOrder(answer).map((item, place) => {
    const made = update(kept.get(item.class_name) ?? row(item), item, place + 1);
    showCalibration(made, item, hasProbabilities(answer));
    return made;
  });
}

/** A softmax has no thresholds: whether its score is high depends on the other classes. */
const hasProbabilities = (answer) => Boolean(answer.calibrated && answer.multi_label);

/** The classes from the highest to the lowest; those without a probability come after those with one. */
function inOrder(answer) {
  const by = hasProbabilities(answer) ? ({ probability }) => probability ?? -1 : () => 0;
  return [...answer.classes].sort((a, b) => by(b) - by(a) || a.rank - b.rank);
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
    element("span", { className: "track", ariaHidden: "true" },
      element("span", { className: "bar" }), element("span", { className: "interval" }), element("span", { className: "threshold" })),
    element("span", { className: "value" }),
    element("span", { className: "similarity" }),
    element("button", { type: "button", className: "plain ask-why" }, "Why", element("span", { className: "unseen" }, ` ${class_name}`)),
    element("span", { className: "verdict" }),
  );
  made.dataset.className = class_name;
  return made;
}

/** Similarities have a level of their own for each class; their z-scores can be compared. */
const hasZScores = (answer) => answer.classes.some((item) => isNumber(item.z_score));
const isNumber = (value) => typeof value === "number";

function update(made, { score, similarity, logit, z_score }, place) {
  made.dataset.score = score;
  made.classList.toggle("first", place === 1);
  made.querySelector(".rank").textContent = place;
  made.querySelector(".bar").style.setProperty("--share", score);
  made.querySelector(".value").replaceChildren(element("span", { className: "unseen" }, "score "), rounded(score));
  const [name, number, digits] = isNumber(z_score) ? ["z-score", z_score, 1]
    : similarity === undefined ? ["logit", logit, 2] : ["similarity", similarity, 3];
  made.querySelector(".similarity").replaceChildren(
    element("span", { className: "unseen" }, `${name} `), signed(number, digits),
  );
  made.querySelector(".similarity").title = isNumber(z_score) ? `similarity ${signed(similarity, 3)}` : "";
  return made;
}

/** Its probability in place of the score, with interval and threshold in the bar; or that there is none. */
function showCalibration(made, item, isShown) {
  const isKnown = isShown && item.probability !== null;
  made.classList.toggle("calibrated", isKnown);
  made.classList.toggle("uncalibrated", isShown && !isKnown);
  made.classList.toggle("present", isKnown && item.present);
  const verdict = made.querySelector(".verdict");
  verdict.title = isShown && !isKnown ? item.not_calibrated?.message ?? "" : "";
  verdict.textContent = isShown && !isKnown ? "not calibrated" : "";
  if (!isKnown) return;
  const [low, high] = item.probability_interval;
  for (const [name, share] of Object.entries({ low, high, threshold: item.threshold })) {
    made.style.setProperty(`--${name}`, share);
  }
  made.querySelector(".bar").style.setProperty("--share", item.probability);
  made.querySelector(".value").replaceChildren(
    element("span", { className: "unseen" }, "probability "), rounded(item.probability),
  );
  verdict.textContent = `${item.present ? "present" : "not present"}, `
    + `95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}, threshold ${item.threshold.toFixed(2)}`;
}

/** How the scores were computed, in a few words. */
export function aboutScores(answer) {
  const z = "; z-score: standard deviations above the ECGs of the model's reference";
  return `${howScored(answer)}; ${howCalibrated(answer)}${hasZScores(answer) ? z : ""}`;
}

function howScored(answer) {
  const count = answer.classes.length;
  if (answer.head) return `each class by itself, by the head ${answer.head} that learnt from labels`;
  if (hasProbabilities(answer)) return "probability of each class by itself";
  if (answer.multi_label) return "each class by itself; the scores need not sum to 1";
  if (count === 1) return "a single class always scores 1: add another, or switch on independent scores";
  return `softmax over ${count} classes; the scores sum to 1`;
}

function howCalibrated(answer) {
  if (answer.head) return "not calibrated: calibrations are for words";
  if (hasProbabilities(answer)) return "the line in a bar is the threshold from which the class is called present";
  if (answer.calibrated) return "switch on independent scores for calibrated probabilities";
  return answer.not_calibrated ? `not calibrated: ${answer.not_calibrated.message}` : "not calibrated";
}

/** The highest class and its number. */
export const bestInWords = (answer) => inWords(answer, inOrder(answer)[0]);

function inWords(answer, item) {
  const isKnown = hasProbabilities(answer) && item.probability !== null;
  const number = (isKnown ? item.probability : item.score).toFixed(2);
  return `${item.class_name} ${number}${isKnown && item.present ? ", present" : ""}`;
}

/** For a screen reader. */
export function spokenScores(answer) {
  const best = inOrder(answer).slice(0, 3).map((item) => inWords(answer, item));
  return `${hasProbabilities(answer) ? "Probabilities" : "Scores"}: ${best.join("; ")}.`;
}

/** Model version, classes and timings of a response. */
export function runFacts(answer) {
  const stages = Object.entries(answer.timings_ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`);
  const facts = [["model", answer.model_version]];
  if (answer.head) facts.push(["head", answer.head]);
  if (answer.prompt_set) facts.push(["prompt set", answer.prompt_set]);
  else if (answer.hypothesis_template && answer.hypothesis_template !== "{}") facts.push(["sentence", `“${answer.hypothesis_template}”`]);
  if (stages.length) facts.push(["milliseconds", stages.join(", ")]);
  return facts.map(([name, fact]) => element("span", {}, element("b", {}, name), ` ${fact}`));
}

/** Scores too small for three decimals are not zero. */
const rounded = (score) => (score > 0 && score < 0.0005 ? "<0.001" : score.toFixed(3));
const signed = (value, digits) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
