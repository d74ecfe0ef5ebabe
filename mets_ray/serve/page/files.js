// Files to upload: which belong together, and what a file without a header does not state itself. The server knows a file by its
// content, so any one file may be sent.

import { Problem } from "./api.js";

const WITHOUT_HEADER = ["csv", "tsv", "txt", "npy", "npz", "mat"];

export const ending = (name) => name.slice(name.lastIndexOf(".") + 1).toLowerCase();

/**
 * Copies of `files` in memory, so that every later request sends what was chosen. Throws Problem for files that are not an ECG.
 */
export async function readFiles(files, maxBytes) {
  const names = files.map((file) => file.name);
  const wfdb = names.filter((name) => ["hea", "dat", "mat"].includes(ending(name)));
  if (names.length > 1 && wfdb.length < names.length) {
    throw new Problem(`These ${names.length} files do not form one ECG.`, { hint: "Choose one ECG at a time." });
  }
  const isMatlab = names.length === 1 && ending(names[0]) === "mat"; // or WFDB's, whose header is not there
  if (wfdb.length && !isMatlab && !wfdb.some((name) => ending(name) === "hea")) {
    throw new Problem(`“${wfdb[0]}” has no header file.`, { hint: "Choose the .hea file together with it." });
  }
  if (wfdb.length && !wfdb.some((name) => ending(name) !== "hea")) {
    throw new Problem(`“${wfdb[0]}” is a header without a signal.`, { hint: "Choose the .dat or .mat file together with it." });
  }
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  if (bytes > maxBytes) {
    throw new Problem(`${megabytes(bytes)} MB is more than the ${megabytes(maxBytes)} MB that this server accepts.`);
  }
  try {
    return await Promise.all(files.map(async (file) => new File([await file.arrayBuffer()], file.name)));
  } catch {
    throw new Problem(`“${names[0]}” could not be read from disk.`, { hint: "It may have been moved or changed. Choose it again." });
  }
}

/** Whether a form must be filled in before `files` can be sent. */
export const needsFacts = (files) => files.length === 1 && WITHOUT_HEADER.includes(ending(files[0].name));

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
