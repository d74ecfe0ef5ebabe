// Calls to the HTTP API: the token, errors in plain words, and a few retries when the server is overloaded.

const TOKEN = "mets_ray_token";
const REPEATS = 3;
const LONGEST_WAIT_S = 20;
const TIMEOUT_S = 60;

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
 * The JSON answer of `path`; `json`, `form`, or `body` of the content type `type` is sent. `onWait(seconds)` is called
 * before each retry. `timeout_s`: where the answer may take longer than usual. Throws Problem, or the signal's AbortError.
 */
export async function call(path, options = {}) {
  const { response, found } = await request(path, options, (answer) => answer.text());
  const answer = parse(found);
  if (answer === undefined) throw changed();
  return { answer, status: response.status };
}

/** As `call`, for an answer of JSON lines: `onLine(line)` is called with each as it comes. A line with an error ends it. */
export async function callLines(path, { onLine, ...options }) {
  await request(path, options, async (response) => {
    let rest = "";
    let last;
    for await (const part of partsOf(response.body.pipeThrough(new TextDecoderStream()))) {
      const lines = (rest + part).split("\n");
      rest = lines.pop();
      for (const text of lines) {
        last = parse(text);
        if (last === undefined) throw changed();
        if (last.line === "error") throw new Problem(last.error.message, { ...last.error, canRetry: true });
        onLine(last);
      }
    }
    if (last?.line !== "summary") throw new Problem("The answer ended too early.", { canRetry: true });
  });
}

async function* partsOf(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

const changed = () =>
  new Problem("The answer is not JSON: something between this page and the server changed it.");

/** {response, found}: the response, and what `read(response)` makes of it. */
async function request(path, options, read) {
  const { method = "GET", json, form, body, type, signal, onWait = () => {}, timeout_s = TIMEOUT_S } = options;
  const headers = {};
  // Ray Serve would otherwise give up after a time that is meant for short requests.
  if (options.timeout_s) headers["X-Request-Timeout-Seconds"] = String(timeout_s);
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  else if (type) headers["Content-Type"] = type;
  const sent = json === undefined ? form ?? body : JSON.stringify(json);
  for (let repeat = 0; ; repeat++) {
    const timeout = AbortSignal.timeout(1000 * timeout_s);
    let response;
    let found;
    try {
      response = await fetch(path, {
        method, headers, body: sent, cache: "no-store", signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
      found = response.ok ? await read(response) : await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof Problem) throw error;
      throw timeout.aborted
        ? new Problem(`The server did not answer within ${timeout_s} s.`, { canRetry: true })
        : new Problem("The server cannot be reached.", { hint: "Check that it is still running and that you are connected.", canRetry: true });
    }
    signal?.throwIfAborted();
    if (response.ok) return { response, found };
    const busy = response.status === 429 || response.status === 503;
    const wait_s = retryAfter(response) ?? 2 ** repeat;
    if (busy && repeat < REPEATS && wait_s <= LONGEST_WAIT_S) {
      onWait(wait_s);
      await sleep(1000 * wait_s, signal);
      continue;
    }
    throw problemOf(response, parse(found)?.error, busy, repeat, wait_s);
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
