// Calls to the HTTP API: the token, errors in plain words, and a few retries when the server is overloaded.

const TOKEN = "mets_ray_token";
const REPEATS = 3;
const LONGEST_WAIT_S = 20;
const TIMEOUT_MS = 60_000;

/** What went wrong, in plain words. `status` is 0 if there was no response. */
export class Problem extends Error {
  constructor(message, { hint = null, reason = "", status = 0, canRetry = false } = {}) {
    super(message);
    Object.assign(this, { hint, reason, status, canRetry });
  }
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

export function keepToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/**
 * The JSON answer of `path`; `json` or `form` is the body. `onWait(seconds)` is called before each retry.
 * Throws Problem, or the signal's AbortError.
 */
export async function call(path, { method = "GET", json, form, signal, onWait = () => {} } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? form : JSON.stringify(json);
  for (let repeat = 0; ; repeat++) {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    let response;
    let text;
    try {
      response = await fetch(path, {
        method, headers, body, cache: "no-store", signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw timeout.aborted
        ? new Problem(`The server did not answer within ${TIMEOUT_MS / 1000} s.`, { canRetry: true })
        : new Problem("The server cannot be reached.", { hint: "Check that it is still running and that you are connected.", canRetry: true });
    }
    signal?.throwIfAborted();
    const answer = parse(text);
    if (response.ok) {
      if (answer === undefined) throw new Problem("The answer is not JSON: something between this page and the server changed it.");
      return { answer, status: response.status };
    }
    const busy = response.status === 429 || response.status === 503;
    const wait_s = retryAfter(response) ?? 2 ** repeat;
    if (busy && repeat < REPEATS && wait_s <= LONGEST_WAIT_S) {
      onWait(wait_s);
      await sleep(1000 * wait_s, signal);
      continue;
    }
    throw problemOf(response, answer?.error, busy, repeat, wait_s);
  }
}

function problemOf(response, error, busy, repeats, wait_s) {
  const status = response.status;
  if (busy) {
    const said = error?.message ? ` It says: ${error.message}.` : "";
    const tried = repeats ? ` The request was tried ${repeats + 1} times.` : "";
    const hint = wait_s > LONGEST_WAIT_S ? `Try again in ${Math.ceil(wait_s)} s.` : "Try again in a moment.";
    return new Problem(`The server is busy.${said}${tried}`, { hint, reason: error?.reason, status, canRetry: true });
  }
  if (!error?.message) {
    return new Problem(`The server answered ${status} without saying why.`, { status, canRetry: status >= 500 });
  }
  return new Problem(error.message, { hint: error.hint, reason: error.reason, status, canRetry: status >= 500 || status === 408 });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Seconds; the header holds a number or a date. */
function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  if (!value) return null;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
