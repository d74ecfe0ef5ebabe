// Elements from data. Strings become text nodes, never markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A message as a sentence, its `quoted` words as code. */
export function sentence(message) {
  const trimmed = message.trim();
  const full = trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
  return full.split("`").map((part, i, parts) => (i % 2 && i < parts.length - 1 ? element("code", {}, part) : part));
}

/** Show `problem` in `slot`, with a button to try again; null clears the slot. */
export function showProblem(slot, problem, retry = null) {
  slot.replaceChildren();
  if (!problem) return;
  slot.append(element("p", {}, ...sentence(problem.message)));
  if (problem.hint) slot.append(element("p", { className: "hint" }, ...sentence(problem.hint)));
  if (retry && problem.canRetry) {
    slot.append(element("button", { type: "button", onclick: retry }, "Try again"));
  }
}

/** Set the options of a `<select>` after its first, in groups: {label: [[value, text], ...]}. */
export function setOptions(select, groups) {
  const value = select.value;
  while (select.options.length > 1) select.remove(1);
  for (const group of [...select.querySelectorAll("optgroup")]) group.remove();
  for (const [label, options] of Object.entries(groups)) {
    if (options.length) {
      select.append(element("optgroup", { label }, ...options.map(([key, text]) => element("option", { value: key }, text))));
    }
  }
  select.value = [...select.options].some((option) => option.value === value) ? value : "";
}
