// One part: full-size picture, map, scores, timings.

import { get } from "./api.js";
import { byId, make, say } from "./dom.js";
import { draw, loadPart } from "./heat.js";
import { moment, number, score } from "./words.js";

const SIDE_PX = 512; // at least: the contour of a small picture is drawn finer than its pixels
let shown = null; // {part, content} while the dialog is open

export async function showDetail(key) {
  try {
    const part = await get(`/api/parts/${key}`);
    const content = await loadPart(key);
    close();
    shown = { part, content };
    fill(part);
    fit(content.bitmap ?? { width: SIDE_PX, height: SIDE_PX });
    redraw();
    byId("detail").showModal();
  } catch (error) {
    say(error.message, "bad");
  }
}

export function prepareDetail() {
  byId("detail-opacity").addEventListener("input", redraw);
  byId("detail").addEventListener("close", close);
}

function close() {
  shown?.content.bitmap?.close();
  shown = null;
}

// Full size: a pixel of the canvas, or several, for each of the picture's.
function fit({ width, height }) {
  const times = Math.ceil(SIDE_PX / Math.max(width, height));
  const canvas = byId("detail-picture");
  [canvas.width, canvas.height] = [width * times, height * times];
}

function redraw() {
  const canvas = byId("detail-picture");
  if (!shown) return;
  draw(canvas, shown.content, shown.part, Number(byId("detail-opacity").value) / 100);
  const what = shown.content.bitmap ? "picture with heat-map" : "no picture is kept";
  canvas.setAttribute("aria-label", `part ${shown.part.part_id}: ${what}`);
}

function fill(part) {
  byId("detail-file").hidden = !part.has_jpg;
  byId("detail-file").href = `/pictures/${part.key}.jpg`;
  byId("detail-title").textContent = `Part ${part.part_id} · ${part.decision}`;
  const facts = [
    ["Score", `${score(part.score)} (threshold ${score(part.threshold)})`],
    ["Reason", part.reason],
    ["Time", moment(part.time) + (part.late ? ", sent later" : "")],
    ["Latency", `${number(part.latency_ms, 1)} ms${part.missed_deadline ? ", too late for the gate" : ""}`],
    ["Engine", part.engine + (part.degraded ? " (degraded)" : "")],
    ["Model", part.model_id],
    ["Second opinion", part.opinion ? `${part.opinion.decision}, ${score(part.opinion.score)} by ${part.opinion.model_id}` : ""],
    ["Run", part.run],
    ["Event", part.event_id],
    ...Object.entries(part.readings).map(([name, value]) => [name, String(value)]),
  ];
  byId("detail-facts").replaceChildren(...facts.filter(([, text]) => text).flatMap(([name, text]) => [
    make("dt", { textContent: name }), make("dd", { textContent: text })]));
  byId("detail-stages").replaceChildren(...Object.entries(part.stages_ms).map(([name, ms]) => make("tr", {},
    make("td", { textContent: name }), make("td", { textContent: number(ms, 2) }),
    make("td", {}, make("meter", { min: 0, max: Math.max(part.latency_ms, ms), value: ms, "aria-label": `${name}, share of the latency` })))));
}
