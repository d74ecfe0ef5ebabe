// The settings of a result as a link to this page: what was asked for and how the paper is shown. Never the ECG or its name:
// they stand in the part of the address after #, which browsers do not send to a server.

import { GAINS_MM_MV, MOST_ZOOM, SPEEDS_MM_S } from "./view.js";
import { USUAL_VIEW } from "./layout.js";

const LONGEST = 12_000;
const MOST_CLASSES = 256;
const LONGEST_WORDS = 500;
const PROMPT_SET = /^[a-z0-9][a-z0-9_:.-]{0,127}@\d{1,9}$/;
const HEAD = /^[a-z0-9][a-z0-9_-]{0,63}$/;
const KEYS = ["head", "set", "class", "sentence", "softmax", "speed", "gain", "zoom"];
const CONTROL = /[\u0000-\u001f\u007f]/;

/** The fragment for {settings, view} as their modules hold them; "" where all is as usual, null where it is too long. */
export function fragmentOf({ settings, view }) {
  const parts = new URLSearchParams();
  if (settings.head) parts.set("head", settings.head);
  if (settings.prompt_set) parts.set("set", settings.prompt_set);
  for (const label of settings.labels) parts.append("class", label);
  if (settings.template) parts.set("sentence", settings.template);
  if (!settings.head && !settings.multi_label) parts.set("softmax", "1");
  for (const [key, name] of Object.entries({ speed: "speed_mm_s", gain: "gain_mm_mv", zoom: "zoom" })) {
    if (view[name] !== USUAL_VIEW[name]) parts.set(key, view[name]);
  }
  const fragment = String(parts);
  if (fragment.length > LONGEST) return null;
  return fragment && `#${fragment}`;
}

/**
 * What `fragment` asks for: {settings, view, faults}, null for one that asks for nothing, like that of the skip link. What
 * it does not name is as usual; what cannot be used is left out and named in `faults`. Nothing in it is trusted.
 */
export function readFragment(fragment) {
  const text = fragment.replace(/^#/, "");
  if (!KEYS.some((key) => text.includes(`${key}=`))) return null;
  if (text.length > LONGEST) return { settings: settingsOf({}), view: USUAL_VIEW, faults: ["it is too long"] };
  const parts = new URLSearchParams(text);
  const faults = [];
  const take = (key, isGood) => {
    const values = parts.getAll(key);
    const good = values.filter(isGood);
    if (good.length < values.length) faults.push(`“${key}” has a value that this page cannot use`);
    return good;
  };
  const isText = (words) => words.trim().length > 0 && words.length <= LONGEST_WORDS && !CONTROL.test(words);
  const choice = (key, choices) => Number(take(key, (value) => choices.map(String).includes(value))[0] ?? Number.NaN);
  const [head] = take("head", (value) => HEAD.test(value));
  const [prompt_set] = take("set", (value) => PROMPT_SET.test(value));
  const labels = take("class", isText);
  if (labels.length > MOST_CLASSES) faults.push(`it names more than ${MOST_CLASSES} classes`);
  const [template] = take("sentence", isText);
  const [softmax] = take("softmax", (value) => value === "1");
  const [zoom] = take("zoom", (value) => /^\d(\.\d{1,2})?$/.test(value) && value >= 1 && value <= MOST_ZOOM);
  const view = {
    speed_mm_s: choice("speed", SPEEDS_MM_S), gain_mm_mv: choice("gain", GAINS_MM_MV), zoom: Number(zoom ?? 1),
  };
  for (const name of Object.keys(view)) if (Number.isNaN(view[name])) view[name] = USUAL_VIEW[name];
  const known = settingsOf({ head, prompt_set, labels: labels.slice(0, MOST_CLASSES), template, softmax });
  return { settings: known, view, faults };
}

function settingsOf({ head = null, prompt_set = null, labels = [], template = null, softmax = null }) {
  const asked = { head, prompt_set: null, labels: [], template: null, multi_label: softmax === null };
  if (head) return asked;
  return prompt_set ? { ...asked, prompt_set } : { ...asked, labels, template };
}
