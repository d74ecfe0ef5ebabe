// Files to upload: which of them form one ECG, and what a file without a header does not state itself. The server knows a
// file by its content, so any one file may be sent.

import { Problem } from "./api.js";

const WITHOUT_HEADER = ["csv", "tsv", "txt", "npy", "npz", "mat"];
const ANNOTATIONS = ["atr", "qrs", "xws"]; // lie beside WFDB records, and are no signals

export const ending = (name) => name.slice(name.lastIndexOf(".") + 1).toLowerCase();
const stem = (name) => name.slice(0, name.lastIndexOf("."));

/**
 * The ECGs in `files`, in their order: [{name, files, problem}]. A header goes with the files that it names, without its
 * annotations; each other file is an ECG by itself. `problem`: {error}, or null.
 */
export async function groupFiles(files, maxBytes) {
  const headers = files.filter((file) => ending(file.name) === "hea");
  const rest = new Set(files.filter((file) => !headers.includes(file)));
  const groups = [];
  for (const header of headers) {
    const names = await signalNames(header);
    const isItsSignal = (name) =>
      names.has(name) || (isSignal(name) && (headers.length === 1 || stem(name) === stem(header.name)));
    const isItsNote = (name) => ANNOTATIONS.includes(ending(name)) && stem(name) === stem(header.name);
    const signals = [...rest].filter(({ name }) => isItsSignal(name));
    groups.push([header, ...signals]);
    for (const file of [...signals, ...[...rest].filter(({ name }) => isItsNote(name))]) rest.delete(file);
  }
  groups.push(...[...rest].map((file) => [file]));
  const place = (group) => Math.min(...group.map((file) => files.indexOf(file)));
  return groups.sort((a, b) => place(a) - place(b)).map((group) => checked(group, maxBytes));
}

/** Whether it is a signal file of WFDB, by its name. */
const isSignal = (name) => ["dat", "mat"].includes(ending(name));

/** What a WFDB header names: the first word of each line after the first, without its comments. */
async function signalNames(header) {
  const text = await header.slice(0, 20_000).text().catch(() => "");
  const lines = text.split(/\r?\n/).filter((line) => line && !line.startsWith("#"));
  return new Set(lines.slice(1).map((line) => line.split(/\s/, 1)[0]));
}

function checked(files, maxBytes) {
  const names = files.map((file) => file.name);
  return { name: names.join(" + "), files, problem: faultOf(files, maxBytes) };
}

function faultOf(files, maxBytes) {
  const [name] = files.map((file) => file.name);
  const fault = (message, hint) => ({ error: new Problem(message, { hint }) });
  if (files.length === 1 && ending(name) === "dat") {
    return fault(`“${name}” has no header file.`, "Choose the .hea file together with it.");
  }
  if (files.length === 1 && ending(name) === "hea") {
    return fault(`“${name}” is a header without a signal.`, "Choose the .dat or .mat file together with it.");
  }
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  if (bytes <= maxBytes) return null;
  return fault(`${megabytes(bytes)} MB is more than the ${megabytes(maxBytes)} MB that this server accepts.`);
}

/** Copies in memory, so that every later request sends what was chosen. Throws Problem. */
export async function copied(files) {
  try {
    return await Promise.all(files.map(async (file) => new File([await file.arrayBuffer()], file.name)));
  } catch {
    throw new Problem(`“${files[0].name}” could not be read from disk.`, {
      hint: "It may have been moved or changed. Choose it again.",
    });
  }
}

/** Whether a form must be filled in before `files` can be sent. */
export const needsFacts = (files) => files?.length === 1 && WITHOUT_HEADER.includes(ending(files[0].name));

/** What a file without a header does state itself, in words. */
export async function contentOf(file) {
  if (ending(file.name) === "npy") return npyContent(file);
  return ["csv", "tsv", "txt"].includes(ending(file.name)) ? csvContent(file) : "";
}

async function csvContent(file) {
  const [line] = (await file.slice(0, 2000).text()).split(/\r?\n/, 1);
  return line ? `First line: ${line.length > 160 ? `${line.slice(0, 160)}…` : line}` : "The file is empty.";
}

/** The header of an npy file: a byte, the word NUMPY, a version, a length, and a Python dictionary as text. */
async function npyContent(file) {
  const text = new TextDecoder("latin1").decode(await file.slice(0, 2000).arrayBuffer());
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(text)?.[1];
  const kind = /'descr':\s*'[<>|=]?([a-z])(\d+)'/.exec(text);
  if (text.slice(1, 6) !== "NUMPY" || shape === undefined || !kind) return "The file has no npy header.";
  const words = { i: "int", u: "uint", f: "float" };
  const size = shape.split(",").map((part) => part.trim()).filter(Boolean).join(" × ");
  return `${size}, ${words[kind[1]] ?? kind[1]}${8 * kind[2]}`;
}

const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1);
