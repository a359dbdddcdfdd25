// The page: live events to what shows them, and one view at a time.

import { get } from "./api.js";
import { prepareDrift, showClock, showState, showSummary } from "./band.js";
import { Captures } from "./captures.js";
import { Chart } from "./chart.js";
import { prepareConfirm } from "./confirm.js";
import { Control } from "./control.js";
import { prepareDetail, showDetail } from "./detail.js";
import { byId, make, say } from "./dom.js";
import { Gallery } from "./gallery.js";
import { learnCrops } from "./heat.js";
import { listen } from "./live.js";
import { prepareSession } from "./session.js";
import { showShifts } from "./shifts.js";
import { Strip } from "./strip.js";
import { Tile } from "./tile.js";

const SHIFTS_MS = 5000;
const VIEWS = ["line", "parts", "control", "captures", "help"];

const open = (part) => showDetail(part.key);
const chart = new Chart();
const strip = new Strip(open);
const last = new Tile(open);
const gallery = new Gallery(open);
const control = new Control(open);
const captures = new Captures();

function showLast(parts) {
  const part = parts.findLast((each) => each.decision !== "OK" && !each.late);
  if (!part) return;
  last.show(part);
  byId("last").replaceChildren(last.element);
}

function showView() {
  const name = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "line";
  for (const view of VIEWS) byId(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const opened = { parts: () => gallery.show(), control: () => control.open(), captures: () => captures.open() }[name];
  Promise.resolve(opened?.()).catch((error) => say(error.message, "bad"));
}

async function showHistory() {
  const parts = await get("/api/latest");
  chart.add(parts);
  strip.fill(parts);
  showLast(parts);
}

async function fillModels() {
  const models = await get("/api/models");
  byId("filters").elements.model.append(...models.map((model) => make("option", { value: model.id, textContent: model.id })));
  await learnCrops();
}

function prepareDialogs() {
  prepareConfirm();
  prepareDetail();
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}

function start() {
  prepareDialogs();
  prepareDrift();
  showClock();
  setInterval(showClock, 1000);
  window.addEventListener("hashchange", showView);
  showView();
  listen(
    (summary) => {
      showSummary(summary);
      control.note(summary);
    },
    (parts) => {
      chart.add(parts);
      strip.add(parts);
      showLast(parts);
    },
    () => showState("lost", "this page's own program does not answer"),
  );
  const failed = (error) => say(error.message, "bad");
  fillModels().then(showHistory).catch(failed);
  prepareSession(() => control.showAudit()).catch(failed);
  const refresh = () => showShifts().catch(() => {}); // the band says so when nothing answers
  refresh();
  setInterval(refresh, SHIFTS_MS);
}

start();
