// Files dropped anywhere on the page.

import { $ } from "./dom.js";

/** Call `onFiles(files)` when files are dropped, `onFolder()` when a folder is; the page shows the drop target. */
export function acceptDrops(onFiles, onFolder) {
  let depth = 0; // of nested elements that the pointer has entered and not left
  const listen = (type, act) =>
    addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      act(event);
      $("drop").hidden = depth <= 0;
    });
  listen("dragenter", () => (depth += 1));
  listen("dragover", () => {});
  listen("dragleave", () => (depth -= 1));
  listen("drop", ({ dataTransfer }) => {
    depth = 0;
    const isFolder = [...dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (isFolder) onFolder();
    else onFiles([...dataTransfer.files]);
  });
}
