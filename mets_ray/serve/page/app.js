// The page: a list of ECGs, a list of classes, and their scores. Signals live in this tab's memory only. Each module has
// one subject; this one connects them.

import { Problem } from "./api.js";
import { listenForCalipers } from "./calipers.js";
import { chooseDefault, listenForClasses, setSettings, settings, showClasses } from "./classes.js";
import { $, showProblem } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { drawPaper, underlays } from "./ecg.js";
import { loadExamples } from "./examples.js";
import { listenForExplain, shade } from "./explain.js";
import { fragmentOf, readFragment } from "./link.js";
import { loadModel } from "./model.js";
import { cancelFacts, changeFacts, openFiles, show } from "./reading.js";
import { listenForRecords } from "./records.js";
import { askExplanation, backToWhole, explanationFailed, score, showWindow } from "./scoring.js";
import { listenForPrint } from "./sheet.js";
import { listenForWindows } from "./timeline.js";
import { useToken } from "./token.js";
import { listenForView, setView, view } from "./view.js";

const DEBOUNCE_MS = 300;
const LINK_DEBOUNCE_MS = 400; // Safari refuses more than 100 changes of the address in 30 seconds

/** Whether the address holds the settings on display; before, it may still hold some that wait for the model. */
let isLinked = false;
let linkTimer = 0;

function keepLinkSoon() {
  clearTimeout(linkTimer);
  linkTimer = setTimeout(keepLink, LINK_DEBOUNCE_MS);
}

/** Keep the settings in the address, without a step in the browser's history. Returns whether there is room for them. */
function keepLink() {
  clearTimeout(linkTimer);
  if (!isLinked) return false;
  const fragment = fragmentOf({ settings: settings(), view });
  if (fragment !== location.hash) history.replaceState(null, "", fragment || location.pathname + location.search);
  $("copied").textContent = "";
  return fragment !== null;
}

/** Ask for what the address says, if it says something. */
function followLink() {
  const wanted = readFragment(location.hash);
  showProblem($("link-problem"), null);
  if (!wanted) return false;
  const faults = [...wanted.faults];
  setView(wanted.view);
  const { head, prompt_set } = wanted.settings;
  if (!setSettings(wanted.settings)) {
    faults.push(head ? `this model has no head “${head}”` : `this server has no prompt set “${prompt_set}”`);
  }
  if (faults.length) {
    showProblem($("link-problem"), new Problem(`Part of this link was ignored: ${faults.join("; ")}.`));
  }
  return true;
}

function modelIsThere(isFirst) {
  const isChanged = isFirst && (followLink() || chooseDefault());
  isLinked = true;
  showClasses();
  keepLink();
  if (isChanged) score(0);
}

async function copyLink() {
  if (!keepLink()) {
    $("copied").textContent = "These classes are too long for a link: save them as a prompt set.";
    return;
  }
  try {
    await navigator.clipboard.writeText(location.href);
    $("copied").textContent = "Copied: the settings, without the ECG.";
  } catch {
    $("copied").textContent = "Copy the address of this page: it holds the settings, without the ECG.";
  }
}

listenForRecords(show);
listenForClasses(() => {
  keepLinkSoon();
  score(DEBOUNCE_MS);
});
listenForView(() => {
  keepLinkSoon();
  drawPaper();
});
listenForWindows(showWindow);
listenForExplain({ ask: askExplanation, redraw: drawPaper, failed: explanationFailed });
underlays.push(shade);
listenForCalipers();
listenForPrint();
$("files").onchange = () => {
  openFiles([...$("files").files]);
  $("files").value = ""; // the same file may be chosen again
};
$("change-facts").onclick = changeFacts;
$("facts-cancel").onclick = cancelFacts;
$("token-form").onsubmit = useToken;
$("whole").onclick = backToWhole;
$("copy-link").onclick = copyLink;
acceptDrops(openFiles, () =>
  showProblem($("list-problem"), new Problem("This is a folder.", { hint: "Drop the files in it." })));
addEventListener("hashchange", () => {
  if (!isLinked || !followLink()) return;
  keepLink();
  score(0);
});
addEventListener("themechange", drawPaper);
new ResizeObserver(drawPaper).observe($("paper-frame"));
showClasses();
loadModel(modelIsThere);
loadExamples();
