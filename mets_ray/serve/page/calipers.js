// Two marks on the paper, and what lies between them: time, rate and amplitude.

import { $ } from "./dom.js";
import { measure, moved, nearest, pointOf, toOtherLead, twoMarks, words } from "./marks.js";

/** Drawing on which they lie, as `draw` returns it, and its ECG. */
let plan = null;
let ecg = null;
/** {segment, time_s, mv} of both; `segment` is a position in `plan.segments`, `mv` counts from the lead's baseline. */
let marks = null;
let isOn = false;
const handles = [];

export function listenForCalipers() {
  handles.push($("mark-a"), $("mark-b"));
  $("calipers-on").onclick = () => switchTo(!isOn);
  handles.forEach((handle, place) => {
    handle.onpointerdown = (event) => {
      event.preventDefault();
      handle.focus({ focusVisible: false });
      handle.setPointerCapture(event.pointerId);
    };
    handle.onpointermove = (event) => {
      if (handle.hasPointerCapture(event.pointerId)) move(place, pointAt(event), rowOf(marks[place]));
    };
    handle.onkeydown = (event) => press(event, place);
  });
  listenForPaper($("paper"));
}

/** Press on the paper and drag: the first mark stays where it was pressed. A finger scrolls, and drags the marks only. */
function listenForPaper(paper) {
  paper.onpointerdown = (event) => {
    if (!isOn || !marks || event.pointerType === "touch" || event.button !== 0) return;
    event.preventDefault();
    paper.setPointerCapture(event.pointerId);
    move(0, pointAt(event));
    move(1, pointAt(event), rowOf(marks[0]));
    handles[1].focus({ focusVisible: false });
  };
  paper.onpointermove = (event) => {
    if (paper.hasPointerCapture(event.pointerId)) move(1, pointAt(event), rowOf(marks[0]));
  };
}

/** Keep the marks where they are on the ECG, however the paper has changed; null hides them. */
export function placeCalipers(newPlan, newEcg) {
  [plan, ecg] = [newPlan, newEcg];
  $("paper").classList.toggle("measured", isOn && ecg !== null);
  if (!plan || !ecg) marks = null;
  else marks = (marks ?? twoMarks(plan)).map((mark) => moved(plan, mark));
  show();
}

function switchTo(on) {
  isOn = on;
  $("calipers-on").ariaPressed = String(on);
  placeCalipers(plan, ecg);
  if (on) handles[0].scrollIntoView({ block: "nearest", inline: "nearest" });
}

function press(event, place) {
  if (event.key === "Escape") {
    switchTo(false);
    $("calipers-on").focus();
    return;
  }
  const mark = marks[place];
  const segment = plan.segments[mark.segment];
  const [time_s, mv] = event.shiftKey ? [0.04, 0.1] : [1 / ecg.sampling_rate_hz, 0.02];
  const to = {
    ArrowLeft: () => ({ ...mark, time_s: mark.time_s - time_s }),
    ArrowRight: () => ({ ...mark, time_s: mark.time_s + time_s }),
    ArrowUp: () => ({ ...mark, mv: mark.mv + mv }),
    ArrowDown: () => ({ ...mark, mv: mark.mv - mv }),
    Home: () => ({ ...mark, time_s: segment.from_s }),
    End: () => ({ ...mark, time_s: segment.to_s }),
    PageUp: () => toOtherLead(plan, mark, -1),
    PageDown: () => toOtherLead(plan, mark, 1),
  }[event.key]?.();
  if (!to) return;
  event.preventDefault();
  marks[place] = moved(plan, to);
  show();
}

/** Where the pointer is on the paper, in millimetres. */
function pointAt({ clientX, clientY }) {
  const box = $("paper").getBoundingClientRect();
  return { x_mm: (clientX - box.left) / plan.mm_px, y_mm: (clientY - box.top) / plan.mm_px };
}

/** The baseline of a mark's row, which it is dragged along. */
const rowOf = ({ segment }) => plan.segments[segment].base_mm;

function move(place, point, base_mm = null) {
  marks[place] = nearest(plan, point, base_mm);
  show();
}

function show() {
  const isShown = isOn && marks !== null;
  $("calipers").hidden = $("caliper-readout").hidden = !isShown;
  if (!isShown) return;
  const [a, b] = marks.map((mark) => pointOf(plan, mark));
  const found = measure(plan, ...marks);
  const px = (mm) => `${mm * plan.mm_px}px`;
  [a, b].forEach((point, place) => {
    const handle = handles[place];
    const { lead } = plan.segments[marks[place].segment];
    Object.assign(handle.style, { left: px(point.x_mm), top: px(point.y_mm) });
    handle.ariaValueMax = Math.round(1000 * ecg.duration_s);
    handle.ariaValueNow = Math.round(1000 * marks[place].time_s);
    const at = `${marks[place].time_s.toFixed(3)} s, ${marks[place].mv.toFixed(2)} mV`;
    handle.ariaValueText = `${lead} at ${at}. ${words(found)}`;
  });
  Object.assign($("caliper-box").style, {
    left: px(Math.min(a.x_mm, b.x_mm)), top: px(Math.min(a.y_mm, b.y_mm)),
    width: px(Math.abs(a.x_mm - b.x_mm)), height: px(Math.abs(a.y_mm - b.y_mm)),
  });
  $("caliper-readout").textContent = words(found);
}
