// What this server runs: the facts of /v1/model, and the prompt sets to choose from.

import { call, hasToken } from "./api.js";
import { $, element, setOptions } from "./dom.js";
import { begin, clearProblems, report } from "./tasks.js";
import { forgetToken } from "./token.js";

/** The answer of /v1/model; null until it is there. */
export let model = null;

/** How a prompt set is asked for: with its version, which never changes its meaning. */
export const reference = (set) => `${set.name}@${set.version}`;

/** The head of this name in the list of classes: no prompt set has a slash in its name. */
export const headReference = (name) => `head/${name}`;

/** Ask for the model and show it; `then(isFirst)` is called with whether it is the first time. */
export async function loadModel(then) {
  const signal = begin("model");
  clearProblems("model-problem");
  try {
    const isFirst = model === null;
    ({ answer: model } = await call("v1/model", { signal }));
    show();
    then(isFirst);
  } catch (error) {
    report(error, signal, "model-problem", () => loadModel(then));
  }
}

function show() {
  $("synthetic").hidden = !model.training_data.synthetic;
  $("archive-link").hidden = !model.archive;
  $("template").placeholder = model.hypothesis_template;
  $("model-facts").replaceChildren(
    ...facts().flatMap(([term, words]) => [element("dt", {}, term), element("dd", {}, words)]),
  );
  if (hasToken()) {
    const forget = element("button", { type: "button", className: "plain", onclick: forgetToken }, "Forget the token");
    $("model-facts").append(element("dt", {}, "Access"), element("dd", {}, "with your token. ", forget));
  }
  const sets = (origin) =>
    model.prompt_sets.filter((set) => set.origin === origin)
      .map((set) => [reference(set), `${reference(set)} (${set.classes.length})`]);
  setOptions($("list"), {
    "Saved on this server": sets("registered"),
    "Included with the model": sets("bundle"),
    "Learnt from labels": model.heads.map(({ name, classes }) => [headReference(name), `${name} (${classes.length})`]),
  });
}

/** [term, words] pairs. */
function facts() {
  const { signal, text_model: text, training_data: data } = model;
  return [
    ["Version", model.model_version],
    ["Package", model.package_version && `mets_ray ${model.package_version}`],
    ["Trained on", trainingData(data)],
    ["Signal", `${signal.leads.length} leads, ${signal.duration_s} s at ${signal.sampling_rate_hz} Hz`],
    ["Language model", `${text.name}, ${text.pooling} pooling, frozen`],
    ["Calibrated for", model.calibrations.map(calibration).join("; ") || "nothing: no score is a probability"],
    ["Runs on", model.device],
    ["Intended use", model.intended_use],
  ].filter(([, words]) => words);
}

function calibration({ prompt_set, classes, not_calibrated, patients, source, synthetic, threshold_rule }) {
  const all = classes.length + Object.keys(not_calibrated).length;
  const data = synthetic ? "synthetic patients" : `patients of ${source}`;
  return `${prompt_set}, ${classes.length} of ${all} classes, on ${patients} ${data}, thresholds by ${threshold_rule}`;
}

function trainingData({ source, synthetic, train_folds: folds, dataset_sha256: sha256 }) {
  const words = [synthetic ? "synthetic ECGs, no patients" : source];
  if (folds?.length) words.push(`folds ${folds.join(", ")}`);
  if (sha256) words.push(`data set ${sha256.slice(0, 8)}`);
  return words.join("; ");
}
