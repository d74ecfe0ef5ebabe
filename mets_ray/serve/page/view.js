// How the paper is shown: its speed, its gain, and how much it is enlarged.

import { $ } from "./dom.js";
import { USUAL_VIEW } from "./layout.js";

export const SPEEDS_MM_S = [25, 50];
export const GAINS_MM_MV = [5, 10, 20];
export const MOST_ZOOM = 4;

export let view = USUAL_VIEW;
let onView = () => {};

/** Call `then()` whenever the view has changed. */
export function listenForView(then) {
  onView = then;
  $("speed").onchange = () => change({ speed_mm_s: Number($("speed").value) });
  $("gain").onchange = () => change({ gain_mm_mv: Number($("gain").value) });
  $("zoom").oninput = () => zoomTo(Number($("zoom").value) / 100);
  const scroll = $("paper-scroll");
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // a pinch on a touchpad comes as this, too
    event.preventDefault();
    zoomTo(view.zoom * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  }, { passive: false });
}

/** Show the paper as `wanted` says; what it leaves out is as usual. */
export function setView(wanted) {
  change({ ...USUAL_VIEW, ...wanted });
}

/** Enlarge, and keep the point of the paper at (x, y) of the window where it is; without one, the middle. */
function zoomTo(zoom, x = null, y = null) {
  const scroll = $("paper-scroll");
  const box = scroll.getBoundingClientRect();
  const [at_x, at_y] = [x === null ? box.width / 2 : x - box.left, y === null ? box.height / 2 : y - box.top];
  const before = view.zoom;
  const [left, top] = [scroll.scrollLeft + at_x, scroll.scrollTop + at_y];
  change({ zoom: Math.round(100 * Math.min(MOST_ZOOM, Math.max(1, zoom))) / 100 });
  scroll.scrollLeft = (left * view.zoom) / before - at_x;
  scroll.scrollTop = (top * view.zoom) / before - at_y;
}

function change(some) {
  view = Object.freeze({ ...view, ...some });
  $("speed").value = view.speed_mm_s;
  $("gain").value = view.gain_mm_mv;
  $("zoom").value = Math.round(100 * view.zoom);
  $("zoom-value").textContent = `${Math.round(100 * view.zoom)} %`;
  onView();
}
