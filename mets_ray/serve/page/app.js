// The page: one ECG, one list of classes, their scores. Signals live in this tab's memory only.

import { call, hasToken, keepToken, Problem } from "./api.js";
import { $, element, sentence, setOptions, showProblem } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { listenForExplain, offerExplanation, shade } from "./explain.js";
import { contentOf, ending, needsFacts, readFiles } from "./files.js";
import { describe, draw } from "./paper.js";
import { clock } from "./strip.js";
import { askTimeline, clearTimeline, listenForWindows, timelineIsStale } from "./timeline.js";
import { aboutScores, clearBars, modelFacts, runFacts, showBars, spokenScores } from "./scores.js";

const DEBOUNCE_MS = 300;
const USUAL_LEADS = "I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6";
// Labels sent with a file go in the URL, and servers and proxies accept URLs of up to 16 KB.
const LONGEST_QUERY = 12_000;
const CLASS_REASONS = new Set([
  "no_classes", "too_many_classes", "repeated_class", "blank_class", "class_too_long", "not_unicode",
  "unknown_text", "unknown_prompt_set", "ambiguous_prompt_set", "long_query",
]);

let model = null;
let examples = [];
/** What was chosen: {files, query: URLSearchParams, suggested: labels of an example, or null}. */
let source = null;
/** Response of /v1/ecg for `source`, or the window on display of a long recording. */
let ecg = null;
/** Of a recording with several windows: what is shown when none of them is chosen, {ecg, answer}. */
let whole = null;
let suggestedText = "";
/** One running task of each kind. A new one aborts the old one, so that its answer is never shown. */
const running = {};
/** What to retry once a token is given. */
const withToken = new Map();

function begin(kind) {
  running[kind]?.abort();
  running[kind] = new AbortController();
  return running[kind].signal;
}

/** Show `error` in `slot`, unless its task was aborted. */
function report(error, signal, slot, retry) {
  if (signal?.aborted) return;
  if (!(error instanceof Problem)) {
    console.error(error);
    error = new Problem("This page failed.", { hint: "Reload it. The browser's console has the details." });
  }
  if (error.status === 401) {
    askToken(error);
    withToken.set(slot.id, retry);
  } else {
    showProblem(slot, error, retry);
  }
}

// --- the ECG ---

async function openFiles(files) {
  if (!files.length) return;
  clearSource();
  const signal = begin("open");
  const retry = () => openFiles(files);
  try {
    const copies = await readFiles(files, model?.limits.max_timeline_bytes ?? Infinity);
    signal.throwIfAborted();
    const chosen = { files: copies, query: new URLSearchParams(), suggested: null };
    if (needsFacts(copies)) await askFacts(chosen, signal);
    else await load(chosen);
  } catch (error) {
    report(error, signal, $("source-problem"), retry);
  }
}

async function openExample(name) {
  clearSource();
  $("example").value = name;
  const signal = begin("open");
  busy("Loading the example…");
  try {
    const { answer } = await call(`v1/examples/${encodeURIComponent(name)}`, { signal, onWait });
    const suggested = examples.find((example) => example.name === name).candidate_labels;
    suggest(suggested);
    const file = new File([JSON.stringify(answer)], `${name}.json`);
    await load({ files: [file], query: new URLSearchParams(), suggested });
  } catch (error) {
    idle();
    report(error, signal, $("source-problem"), () => openExample(name));
  }
}

/** Clear everything that belongs to the previous ECG. */
function clearSource() {
  for (const kind of ["open", "load", "score", "timeline", "explain"]) running[kind]?.abort();
  clearTimeout(timer);
  for (const key of ["source-problem", "score-problem", "timeline-problem"]) {
    withToken.delete(key);
    showProblem($(key), null);
  }
  source = null;
  $("facts-form").hidden = true;
  $("example").value = "";
  $("files").value = "";
  showSource();
  showEcg(null);
  clearScores();
  showWhole(null);
  clearTimeline();
  idle();
}

function showSource() {
  $("source-name").textContent = source && !source.suggested ? source.files.map((file) => file.name).join(" + ") : "";
  $("remove").hidden = source === null;
  $("change-facts").hidden = !source || !needsFacts(source.files);
  $("empty").hidden = source !== null || !$("facts-form").hidden;
  $("suggest").hidden = !source?.suggested || source.suggested.join("\n") === typedLabels().join("\n");
}

async function askFacts(chosen, signal) {
  const [file] = chosen.files;
  const content = await contentOf(file);
  signal.throwIfAborted();
  $("facts-form").reset();
  $("facts-file").textContent = file.name;
  $("facts-content").textContent = content;
  const hasNames = ending(file.name) === "csv";
  $("leads-field").hidden = hasNames;
  $("leads").required = ending(file.name) === "npy";
  showFacts();
  $("facts-form").onsubmit = (event) => {
    event.preventDefault();
    chosen.query = new URLSearchParams({ unit: $("unit").value, sampling_rate_hz: $("rate").value });
    const leads = hasNames ? [] : $("leads").value.split(/[\s,;]+/).filter(Boolean);
    if (leads.length) chosen.query.set("leads", leads.join(","));
    load(chosen);
  };
}

function showFacts() {
  $("facts-form").hidden = false;
  showSource();
  $("unit").focus();
}

function upload() {
  const form = new FormData();
  for (const file of source.files) form.append("file", file, file.name);
  return form;
}

/** A long recording in the form that the server need not hold in memory, if there is one. */
function longUpload() {
  const [file] = source.files;
  return ending(file.name) === "npy" ? { body: file, type: "application/x-npy" } : { form: upload() };
}

async function load(chosen) {
  for (const kind of ["score", "timeline"]) running[kind]?.abort();
  const signal = begin("load");
  source = chosen;
  showSource();
  showEcg(null);
  showWhole(null);
  clearTimeline();
  showProblem($("source-problem"), null);
  busy("Reading the ECG…");
  try {
    const bytes = source.files.reduce((sum, file) => sum + file.size, 0);
    source.isLong = bytes > (model?.limits.max_body_bytes ?? Infinity);
    const answer = source.isLong ? null : await firstWindow(signal);
    source.isRead = true;
    $("facts-form").hidden = true;
    idle();
    showEcg(answer);
    score(0);
  } catch (error) {
    if (!signal.aborted) idle();
    report(error, signal, $("source-problem"), () => load(chosen));
  }
}

/** The answer of /v1/ecg; null for a recording that is longer than it takes, which has scores over time only. */
async function firstWindow(signal) {
  try {
    const { answer } = await call(withQuery("v1/ecg", source.query), { method: "POST", form: upload(), signal, onWait });
    return answer;
  } catch (error) {
    if (error.reason !== "too_long") throw error;
    source.isLong = true;
    return null;
  }
}

/** One window of a recording, as /v1/timeline gives it. */
function showWindow(item, windowEcg, head) {
  $("whole").hidden = !whole;
  showEcg(windowEcg);
  showWarnings(head.warnings);
  if (!item.scores) {
    $("caption").replaceChildren(element("span", {}, `left out: ${item.message ?? item.left_out}`));
    clearScores("This window was left out, so it has no scores.");
    return;
  }
  const order = item.scores.map((_, place) => place).sort((a, b) => item.similarities[b] - item.similarities[a]);
  const ranks = new Map(order.map((place, rank) => [place, rank + 1]));
  const classes = head.classes.map((class_name, place) => ({
    class_name, score: item.scores[place], similarity: item.similarities[place], rank: ranks.get(place),
  }));
  showScores({ ...head, classes, timings_ms: {} }, `from ${clock(item.start_s)} to ${clock(item.end_s)}: `);
}

/** Keep {ecg, answer} of a whole recording, to come back to; null for none. */
function showWhole(found) {
  whole = found;
  $("whole").hidden = true;
  if (found) {
    showEcg(found.ecg);
    showScores(found.answer);
  }
}

function showEcg(answer) {
  ecg = answer;
  $("warnings").replaceChildren();
  $("ecg-text").textContent = "";
  $("paper").ariaLabel = "Empty ECG paper";
  if (ecg) {
    const { name, text } = describe(ecg);
    $("paper").ariaLabel = name;
    $("ecg-text").textContent = text;
    showWarnings(ecg.warnings);
  }
  drawPaper();
}

function drawPaper() {
  const plan = draw($("paper"), ecg, shade);
  if (!ecg || !plan) {
    $("caption").replaceChildren();
    return;
  }
  const facts = ["25 mm/s", "10 mm/mV", `${ecg.sampling_rate_hz} Hz`];
  facts.push(plan.shown_s < ecg.duration_s ? `first ${plan.shown_s} of ${ecg.duration_s} s` : `${ecg.duration_s} s`);
  if (ecg.start_s !== undefined) facts.unshift(`from ${clock(ecg.start_s)} to ${clock(ecg.start_s + ecg.duration_s)}`);
  else if (ecg.windows > 1) facts.push(`window 1 of ${ecg.windows}`);
  const highpass = model?.signal.highpass_hz;
  facts.push(`as the model sees it, ${highpass ? `above ${highpass} Hz` : "unfiltered"}`);
  $("caption").replaceChildren(...facts.map((fact) => element("span", {}, fact)));
}

function showWarnings(warnings) {
  const shown = new Map(warnings.map((warning) => [warning.message, warning]));
  $("warnings").replaceChildren(...[...shown.values()].map(({ message }) => element("li", {}, ...sentence(message))));
}

// --- the classes ---

const typedLabels = () => [...new Set($("labels").value.split("\n").map((line) => line.trim()).filter(Boolean))];
const chosenSet = () => model?.prompt_sets.find((set) => reference(set) === $("list").value);
const reference = (set) => `${set.name}@${set.version}`;

/** Fill in an example's classes, unless the user has typed others. */
function suggest(labels) {
  if (!labels.length || $("list").value) return;
  if (typedLabels().length && $("labels").value !== suggestedText) return;
  suggestedText = labels.join("\n");
  $("labels").value = suggestedText;
  showClasses();
}

function showClasses() {
  const set = chosenSet();
  const count = set ? set.classes.length : typedLabels().length;
  $("class-count").textContent = count || "";
  $("typed").hidden = Boolean(set);
  $("stored").hidden = !set;
  $("save-form").hidden = Boolean(set);
  $("advanced").hidden = Boolean(set);
  $("stored-classes").replaceChildren(...(set?.classes ?? []).map((name) => element("li", {}, name)));
  showSource();
}

function classesChanged() {
  showClasses();
  $("saved").textContent = "";
  showProblem($("save-problem"), null);
  score(DEBOUNCE_MS);
}

function template() {
  return $("template").value.trim() || null;
}

async function save(event) {
  event.preventDefault();
  const signal = begin("save");
  showProblem($("save-problem"), null);
  const name = $("save-name").value;
  const body = { candidate_labels: typedLabels() };
  if (template()) body.hypothesis_template = template();
  $("saved").textContent = "Saving…";
  try {
    const { answer, status } = await call(`v1/prompt-sets/${encodeURIComponent(name)}`, {
      method: "PUT", json: body, signal, onWait,
    });
    $("saved").textContent = status === 201 ? `Saved as ${answer.prompt_set}.` : `Unchanged: this is ${answer.prompt_set}.`;
    await loadModel();
  } catch (error) {
    if (!signal.aborted) $("saved").textContent = "";
    report(error, signal, $("save-problem"), () => $("save-form").requestSubmit());
  }
}

// --- the scores ---

let timer = 0;

/** Request the scores in `delay_ms`. Until they arrive, the ones on display are marked as stale. */
function score(delay_ms) {
  running.score?.abort();
  clearTimeout(timer);
  running.timeline?.abort();
  offerExplanation(null);
  for (const key of ["score-problem", "class-problem", "template-problem", "timeline-problem"]) {
    withToken.delete(key);
    showProblem($(key), null);
  }
  if (!source?.isRead) return;
  if (!$("list").value && !typedLabels().length) {
    clearScores("Type at least one class.");
    clearTimeline();
    return;
  }
  timelineIsStale();
  $("scores").classList.add("stale");
  $("nothing").hidden = true;
  $("state").textContent = "Updating…";
  timer = setTimeout(source.isLong ? askLong : askScores, delay_ms);
}

function scoreQuery() {
  const query = new URLSearchParams(source.query);
  if ($("list").value) query.set("prompt_set", $("list").value);
  else {
    for (const label of typedLabels()) query.append("candidate_labels", label);
    if (template()) query.set("hypothesis_template", template());
  }
  query.set("multi_label", $("multi-label").checked);
  if (String(query).length > LONGEST_QUERY) {
    throw new Problem("This list is too long for one request from this page.", {
      reason: "long_query", hint: "Save it as a prompt set below, then choose it above.",
    });
  }
  return query;
}

/** Scores of the whole recording, then, if it has several windows, over time. */
async function askScores() {
  const signal = begin("score");
  try {
    const { answer } = await call(withQuery("v1/zero-shot", scoreQuery()), {
      method: "POST", form: upload(), signal, onWait,
    });
    if (answer.windows > 1) {
      showWhole({ ecg: whole?.ecg ?? ecg, answer });
      askOverTime(begin("timeline"), "timeline-problem");
    } else showScores(answer);
  } catch (error) {
    scoresFailed(error, signal);
  }
}

/** Scores over time of a recording that is too long for any other request. */
async function askLong() {
  busy("Sending the recording…");
  await askOverTime(begin("score"), "score-problem");
}

async function askOverTime(signal, slot) {
  try {
    const query = scoreQuery();
    query.set("signals", true);
    const timeout_s = (model?.limits.timeline_deadline_s ?? 120) + 15;
    await askTimeline(withQuery("v1/timeline", query), longUpload(), { signal, onWait, keeps: source.isLong, timeout_s });
    if (!signal.aborted) idle();
  } catch (error) {
    if (!signal.aborted) idle();
    if (slot === "score-problem") scoresFailed(error, signal);
    else report(error, signal, $(slot), () => score(0));
  }
}

function scoresFailed(error, signal) {
  if (signal.aborted) return;
  const slot = error.reason === "bad_template" ? "template-problem" : CLASS_REASONS.has(error.reason) ? "class-problem" : "score-problem";
  clearScores(slot === "score-problem" ? "" : "No scores: see the message next to the classes.");
  clearTimeline();
  if (slot === "template-problem") $("advanced").open = true;
  report(error, signal, $(slot), () => score(0));
}

/** `part`: which part of the recording they are of, in words. */
function showScores(answer, part = "") {
  idle();
  $("scores").classList.remove("stale");
  $("state").textContent = "";
  $("nothing").hidden = true;
  showBars(answer);
  $("scores-about").textContent = part + aboutScores(answer);
  $("run-facts").replaceChildren(...runFacts(answer));
  $("announce").textContent = spokenScores(answer);
  showWarnings([...(ecg?.warnings ?? []), ...answer.warnings]);
  offerExplanation(!part && answer.windows === 1 ? answer : null);
}

/** Why the scores on display are what they are: the same request, with the classes to explain. */
async function askExplanation(names) {
  const query = scoreQuery();
  query.set("explain", true);
  for (const name of names) query.append("explain_classes", name);
  const signal = begin("explain");
  const { answer } = await call(withQuery("v1/zero-shot", query), { method: "POST", form: upload(), signal, onWait });
  return answer.explanation;
}

function clearScores(remark = "The scores appear here.") {
  $("scores").classList.remove("stale");
  for (const key of ["state", "scores-about", "announce"]) $(key).textContent = "";
  $("run-facts").replaceChildren();
  clearBars();
  offerExplanation(null);
  $("nothing").textContent = remark;
  $("nothing").hidden = !remark;
}

// --- waiting, the token, the model ---

function busy(words) {
  $("paper-frame").dataset.busy = words;
}

function idle() {
  delete $("paper-frame").dataset.busy;
}

function onWait(seconds) {
  const words = `The server is busy. Trying again in ${Math.ceil(seconds)} s…`;
  if ($("paper-frame").dataset.busy) busy(words);
  else $("state").textContent = words;
  $("announce").textContent = words;
}

function askToken(problem) {
  idle();
  $("token-form").hidden = false;
  showProblem($("token-problem"), new Problem(hasToken() ? problem.message : "This server needs a token."));
  $("token").focus();
}

async function useToken(event) {
  event.preventDefault();
  keepToken($("token").value.trim());
  $("token").value = "";
  $("token-form").hidden = true;
  showProblem($("token-problem"), null);
  const again = [...withToken.values()];
  withToken.clear();
  for (const task of again) await task();
}

function forgetToken() {
  keepToken(null);
  location.reload();
}

async function loadModel() {
  const signal = begin("model");
  showProblem($("model-problem"), null);
  try {
    const first = model === null;
    ({ answer: model } = await call("v1/model", { signal }));
    showModel();
    if (first && model.default_prompt_set && !$("labels").value) {
      const set = model.prompt_sets.find((item) => [item.name, reference(item)].includes(model.default_prompt_set));
      if (set) $("list").value = reference(set);
    }
    showClasses();
  } catch (error) {
    report(error, signal, $("model-problem"), loadModel);
  }
}

function showModel() {
  $("synthetic").hidden = !model.training_data.synthetic;
  $("template").placeholder = model.hypothesis_template;
  $("model-facts").replaceChildren(
    ...modelFacts(model).flatMap(([term, words]) => [element("dt", {}, term), element("dd", {}, words)]),
  );
  if (hasToken()) {
    const forget = element("button", { type: "button", className: "plain", onclick: forgetToken }, "Forget the token");
    $("model-facts").append(element("dt", {}, "Access"), element("dd", {}, "with your token. ", forget));
  }
  const sets = (origin) =>
    model.prompt_sets.filter((set) => set.origin === origin)
      .map((set) => [reference(set), `${reference(set)} (${set.classes.length})`]);
  setOptions($("list"), { "Saved on this server": sets("registered"), "Included with the model": sets("bundle") });
}

async function loadExamples() {
  const signal = begin("examples");
  try {
    ({ answer: { examples } } = await call("v1/examples", { signal, onWait }));
    const groups = {}; // real ones come first
    for (const example of examples) (groups[example.credit ?? "Synthetic ECGs"] ??= []).push(example);
    const options = (group) => group.map(({ name, title }) => [name, title]);
    setOptions($("example"), Object.fromEntries(Object.entries(groups).map(([key, group]) => [key, options(group)])));
    const [[label, first] = ["", []]] = Object.entries(groups);
    const some = first.filter((_, i) => i % Math.ceil(first.length / 4) === 0);
    $("empty-examples-label").textContent = `Or start with one of these (${label}):`;
    $("empty-examples").querySelector(".choices").replaceChildren(
      ...some.map(({ name, title }) =>
        element("button", { type: "button", onclick: () => openExample(name) }, title.replace(/ \([^)]*\)$/, ""))),
    );
    $("empty-examples").hidden = !some.length;
  } catch (error) {
    report(error, signal, $("source-problem"), loadExamples);
  }
}

function withQuery(path, query) {
  const text = String(query);
  return text ? `${path}?${text}` : path;
}

// --- events ---

$("files").onchange = () => openFiles([...$("files").files]);
$("example").onchange = () => ($("example").value ? openExample($("example").value) : clearSource());
$("remove").onclick = () => {
  clearSource();
  $("files").focus();
};
$("facts-cancel").onclick = () => (ecg ? ($("facts-form").hidden = true) : $("remove").click());
$("change-facts").onclick = showFacts;
$("usual-leads").onclick = () => ($("leads").value = USUAL_LEADS);
$("labels").oninput = classesChanged;
$("list").onchange = classesChanged;
$("template").oninput = classesChanged;
$("multi-label").onchange = () => score(0);
$("suggest").onclick = () => {
  suggestedText = source.suggested.join("\n");
  $("labels").value = suggestedText;
  classesChanged();
};
$("edit-stored").onclick = () => {
  $("labels").value = chosenSet().classes.join("\n");
  $("list").value = "";
  classesChanged();
  $("labels").focus();
};
$("whole").onclick = () => showWhole(whole);
$("save-form").onsubmit = save;
$("token-form").onsubmit = useToken;
acceptDrops(openFiles, () =>
  showProblem($("source-problem"), new Problem("This is a folder.", { hint: "Drop the files of one ECG." })));
new ResizeObserver(drawPaper).observe($("paper-frame"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPaper);
listenForWindows(showWindow);
listenForExplain({
  ask: askExplanation,
  redraw: drawPaper,
  failed: (error, retry) => report(error, running.explain?.signal, $("why-problem"), retry),
});
showClasses();
loadModel();
loadExamples();
