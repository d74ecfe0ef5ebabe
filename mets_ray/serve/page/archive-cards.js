// What was found, as ECGs on small paper. A mouse that rests on one shows it larger.

import { choose, isChosen } from "./archive-list.js";
import { traceOf } from "./archive-traces.js";
import { $, element, sentence } from "./dom.js";
import { USUAL_VIEW } from "./layout.js";
import { draw } from "./paper.js";

const REST_MS = 180;
const PEEK_GAP_PX = 12;

/** Hits on display, in order. */
export const hits = [];
let actions = {};
let peekTimer = 0;
/** Cards come near the screen before their signals are asked for. */
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    paintThumb(target);
  }
}, { rootMargin: "300px" });

/** open(hit), like(hit): what the buttons of a card do. */
export function listenForCards(wanted) {
  actions = wanted;
  const cards = $("cards");
  cards.addEventListener("keydown", (event) => {
    const thumbs = [...cards.querySelectorAll(".thumb")];
    const to = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const place = thumbs.indexOf(event.target);
    if (to === undefined || place < 0) return;
    thumbs[place + to]?.focus();
    event.preventDefault();
  });
  cards.addEventListener("pointerover", (event) => {
    const thumb = event.target.closest(".thumb");
    if (event.pointerType !== "mouse" || !thumb || thumb.contains(event.relatedTarget)) return;
    clearTimeout(peekTimer);
    peekTimer = setTimeout(peek, REST_MS, thumb);
  });
  cards.addEventListener("pointerout", (event) => {
    if (!event.target.closest(".thumb")?.contains(event.relatedTarget)) hidePeek();
  });
  for (const name of ["scroll", "blur"]) addEventListener(name, hidePeek);
  addEventListener("keydown", (event) => event.key === "Escape" && hidePeek());
  addEventListener("themechange", redraw);
  new ResizeObserver(redraw).observe(cards);
}

/** Show these hits, after those that are on display if `isMore`. Returns the first new card's button. */
export function showHits(some, isMore) {
  hidePeek();
  if (!isMore) hits.length = 0;
  const first = hits.length;
  hits.push(...some);
  const rows = some.map(card);
  if (isMore) $("cards").append(...rows);
  else $("cards").replaceChildren(...rows);
  return $("cards").querySelectorAll(".thumb")[first];
}

/** Say on each card whether it is in the list. */
export function showChosen() {
  [...$("cards").children].forEach((row, place) => mark(row.querySelector(".add"), hits[place]));
}

export function mark(button, hit) {
  button.ariaPressed = String(isChosen(hit));
  button.textContent = isChosen(hit) ? "In the list" : "Add to list";
}

/** What is known of a hit, in a few words each. */
export function factsOf({ similarity, percentile, probability, age, sex }) {
  const facts = [];
  if (similarity !== null) facts.push(`similarity ${similarity.toFixed(3)}`);
  if (percentile !== null) facts.push(`above ${Math.min(percentile, 99.99).toFixed(percentile > 99 ? 2 : 1)} % of the archive`);
  if (probability !== null) facts.push(`probability ${probability.toFixed(3)}`);
  const who = [age === null ? "" : `${Math.round(age)} years`, sex ?? ""].filter(Boolean).join(", ");
  if (who) facts.push(who);
  return facts;
}

function card(hit) {
  const thumb = element("button", { type: "button", className: "thumb", onclick: () => actions.open(hit) },
    element("canvas"));
  thumb.setAttribute("aria-label", `Open ECG ${hit.record_id}, ${factsOf(hit).join(", ")}`);
  thumb.hit = hit;
  const add = element("button", { type: "button", className: "plain add", onclick: () => choose(hit, !isChosen(hit)) });
  mark(add, hit);
  const like = element("button", { type: "button", className: "plain", onclick: () => actions.like(hit) }, "More like this");
  for (const button of [add, like]) button.setAttribute("aria-describedby", `hit-${hit.place}`);
  const row = element("li", { className: "card" }, thumb,
    element("p", { className: "card-facts" }, element("strong", { id: `hit-${hit.place}` }, hit.record_id),
      ...factsOf(hit).map((fact) => element("span", {}, fact))));
  row.append(element("div", { className: "card-tools" }, like, add));
  near.observe(thumb);
  return row;
}

async function paintThumb(thumb) {
  try {
    thumb.ecg = await traceOf(thumb.hit);
    drawThumb(thumb);
    const { report } = thumb.ecg;
    if (report) thumb.parentElement.querySelector(".card-facts").after(element("p", { className: "report" }, report));
  } catch (error) {
    thumb.replaceChildren(element("p", { className: "fault" }, "No signal: ", ...sentence(error.message)));
  }
}

/** The whole ECG: one with large deflections needs more rows of paper, and is drawn smaller. */
function drawThumb(thumb) {
  const canvas = thumb.querySelector("canvas");
  const paper = { width_px: thumb.clientWidth, least_px: thumb.clientHeight, narrow: false };
  const plan = draw(canvas, thumb.ecg, { view: USUAL_VIEW, ...paper });
  const share = plan && thumb.clientHeight / (plan.height_mm * plan.mm_px);
  if (share < 1) draw(canvas, thumb.ecg, { view: { ...USUAL_VIEW, zoom: share }, ...paper });
}

function redraw() {
  for (const thumb of $("cards").querySelectorAll(".thumb")) if (thumb.ecg) drawThumb(thumb);
}

function peek(thumb) {
  if (!thumb.ecg || !thumb.isConnected) return;
  const box = $("peek");
  box.hidden = false;
  draw($("peek-paper"), thumb.ecg, { view: USUAL_VIEW, width_px: box.clientWidth, narrow: false });
  $("peek-caption").textContent = ["25 mm/s", "10 mm/mV", ...factsOf(thumb.hit)].join(" · ");
  const from = thumb.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = box;
  const [right, bottom] = [innerWidth - width - 8, innerHeight - height - 8];
  // Beside the card where there is room, else above or below it: never on it.
  const isRight = from.right + PEEK_GAP_PX <= right;
  const isLeft = from.left - PEEK_GAP_PX - width >= 8;
  const left = isRight ? from.right + PEEK_GAP_PX : isLeft ? from.left - PEEK_GAP_PX - width : Math.min(from.left, right);
  let top = Math.min(from.top, bottom);
  if (!isRight && !isLeft) {
    const below = from.bottom + PEEK_GAP_PX;
    top = below <= bottom ? below : from.top - PEEK_GAP_PX - height;
  }
  Object.assign(box.style, { left: `${Math.max(8, left)}px`, top: `${Math.max(8, top)}px` });
}

export function hidePeek() {
  clearTimeout(peekTimer);
  $("peek").hidden = true;
}
