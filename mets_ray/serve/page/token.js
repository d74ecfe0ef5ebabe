// The access token: asked for when the server refuses, kept for this tab.

import { hasToken, keepToken, Problem } from "./api.js";
import { $, showProblem } from "./dom.js";

/** What to do again once a token is given, by the slot that its error would be shown in. */
const retries = new Map();

export function askToken(problem, slot, retry) {
  retries.set(slot, retry);
  $("token-form").hidden = false;
  showProblem($("token-problem"), new Problem(hasToken() ? problem.message : "This server needs a token."));
  $("token").focus();
}

export function dropRetry(slot) {
  retries.delete(slot);
}

export async function useToken(event) {
  event.preventDefault();
  keepToken($("token").value.trim());
  $("token").value = "";
  $("token-form").hidden = true;
  showProblem($("token-problem"), null);
  const again = [...retries.values()];
  retries.clear();
  for (const task of again) await task();
}

export function forgetToken() {
  keepToken(null);
  location.reload();
}
