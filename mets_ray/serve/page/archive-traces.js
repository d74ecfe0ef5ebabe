// Signals of the ECGs that were found: a few requests at a time, and a bounded number of them kept.

import { call } from "./api.js";

const AT_ONCE = 4;
const MOST_KEPT = 120;

/** Promises of answers of /v1/archive/ecg by `keyOf`, the oldest first. */
const kept = new Map();
const waiting = [];
let running = 0;

/** What tells a hit from all others: several sources may have the same ids. */
export const keyOf = ({ record_id, columns }) => JSON.stringify([columns.source, record_id]);

/** A promise of the ECG of a hit, in the form of /v1/ecg. One that cannot be had throws Problem, and is asked for anew. */
export function traceOf(hit) {
  const key = keyOf(hit);
  const known = kept.get(key);
  kept.delete(key);
  const trace = known ?? ask(hit, key);
  kept.set(key, trace);
  for (const oldest of kept.keys()) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(oldest);
  }
  return trace;
}

export const forgetTraces = () => kept.clear();

function ask(hit, key) {
  const trace = new Promise((resolve, reject) => waiting.push({ hit, resolve, reject }));
  trace.catch(() => kept.get(key) === trace && kept.delete(key));
  next();
  return trace;
}

function next() {
  if (running >= AT_ONCE || !waiting.length) return;
  const { hit, resolve, reject } = waiting.shift();
  const query = new URLSearchParams({ source: hit.columns.source });
  running += 1;
  call(`v1/archive/ecg/${encodeURIComponent(hit.record_id)}?${query}`)
    .then(({ answer }) => resolve(answer), reject)
    .finally(() => {
      running -= 1;
      next();
    });
  next();
}
