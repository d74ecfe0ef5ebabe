// One running task of each kind, what it shows while it waits, and what is shown when it fails.

import { Problem } from "./api.js";
import { $, showProblem } from "./dom.js";
import { askToken, dropRetry } from "./token.js";

const running = {};

/** The signal of a new task. It aborts the one of the same kind that still runs, so that its answer is never shown. */
export function begin(kind) {
  stop(kind);
  running[kind] = new AbortController();
  return running[kind].signal;
}

export function stop(...kinds) {
  for (const kind of kinds) running[kind]?.abort();
}

/** Show `error` in the slot of this id, unless its task was aborted. Returns the Problem that was shown. */
export function report(error, signal, slot, retry) {
  if (signal?.aborted) return null;
  if (!(error instanceof Problem)) {
    console.error(error);
    error = new Problem("This page failed.", { hint: "Reload it. The browser's console has the details." });
  }
  if (error.status === 401) {
    idle();
    askToken(error, slot, retry);
  } else {
    showProblem($(slot), error, retry);
  }
  return error;
}

/** Clear these slots, and forget what they would have retried. */
export function clearProblems(...slots) {
  for (const slot of slots) {
    dropRetry(slot);
    showProblem($(slot), null);
  }
}

export function busy(words) {
  $("paper-frame").dataset.busy = words;
}

export function idle() {
  delete $("paper-frame").dataset.busy;
}

/** The server asks to wait so many seconds. */
export function onWait(seconds) {
  const words = `The server is busy. Trying again in ${Math.ceil(seconds)} s…`;
  if ($("paper-frame").dataset.busy) busy(words);
  else $("state").textContent = words;
  $("announce").textContent = words;
}
