// The page: a list of ECGs, a list of classes, and their scores. Signals live in this tab's memory only. Each module has
// one subject; this one connects them.

import { Problem } from "./api.js";
import { listenForCalipers } from "./calipers.js";
import { chooseDefault, listenForClasses, setSettings, settings, showClasses } from "./classes.js";
import { $, showProblem } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { drawPaper } from "./ecg.js";
import { loadExamples } from "./examples.js";
import { fragmentOf, readFragment } from "./link.js";
import { loadModel } from "./model.js";
import { cancelFacts, changeFacts, openFiles, show } from "./reading.js";
import { listenForRecords } from "./records.js";
import { backToWhole, score, showWindow } from "./scoring.js";
import { listenForPrint } from "./sheet.js";
import { listenForWindows } from "./timeline.js";
import { useToken } from "./token.js";
import { listenForView, setView, view } from "./view.js";

const DEBOUNCE_MS = 300;

/** Whether the address holds the settings on display; before, it may still hold some that wait for the model. */
let isLinked = false;

/** Keep the settings in the address, without a step in the browser's history. */
function keepLink() {
  if (!isLinked) return;
  const fragment = fragmentOf({ settings: settings(), view });
  if (fragment !== location.hash) history.replaceState(null, "", fragment || location.pathname + location.search);
  $("copied").textContent = "";
}

/** Ask for what the address says, if it says something. */
function followLink() {
  const wanted = readFragment(location.hash);
  showProblem($("link-problem"), null);
  if (!wanted) return false;
  const faults = [...wanted.faults];
  setView(wanted.view);
  if (!setSettings(wanted.settings)) faults.push(`this server has no prompt set “${wanted.settings.prompt_set}”`);
  if (faults.length) {
    showProblem($("link-problem"), new Problem(`A part of this link was left out: ${faults.join("; ")}.`));
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
  keepLink();
  try {
    await navigator.clipboard.writeText(location.href);
    $("copied").textContent = "Copied: the settings, without the ECG.";
  } catch {
    $("copied").textContent = "Copy the address of this page: it holds the settings, without the ECG.";
  }
}

listenForRecords(show);
listenForClasses(() => {
  keepLink();
  score(DEBOUNCE_MS);
});
listenForView(() => {
  keepLink();
  drawPaper();
});
listenForWindows(showWindow);
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
