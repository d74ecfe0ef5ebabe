// Signals of the ECGs that were found: a few requests at a time, and a bounded number of them kept.

import { call } from "./api.js";

const AT_ONCE = 4;
const MOST_KEPT = 120;

/** Promises of answers of /v1/archive/ecg by record id, the oldest first. */
const kept = new Map();
const waiting = [];
let running = 0;

/** A promise of the ECG with this id, in the form of /v1/ecg. One that cannot be had throws Problem, and is asked for anew. */
export function traceOf(recordId) {
  const known = kept.get(recordId);
  kept.delete(recordId);
  const trace = known ?? ask(recordId);
  kept.set(recordId, trace);
  for (const oldest of kept.keys()) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(oldest);
  }
  return trace;
}

export const forgetTraces = () => kept.clear();

function ask(recordId) {
  const trace = new Promise((resolve, reject) => waiting.push({ recordId, resolve, reject }));
  trace.catch(() => kept.get(recordId) === trace && kept.delete(recordId));
  next();
  return trace;
}

function next() {
  if (running >= AT_ONCE || !waiting.length) return;
  const { recordId, resolve, reject } = waiting.shift();
  running += 1;
  call(`v1/archive/ecg/${encodeURIComponent(recordId)}`)
    .then(({ answer }) => resolve(answer), reject)
    .finally(() => {
      running -= 1;
      next();
    });
  next();
}
