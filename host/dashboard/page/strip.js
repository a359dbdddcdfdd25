// The belt: the last parts, the newest first. A fast line shows some of its parts, rejected ones before others.

import { byId, make, setText } from "./dom.js";
import { Tile } from "./tile.js";

const TILES = 12;
const MOVE_MS = 500;
const STEP = 3; // parts that come on at each move

export class Strip {
  constructor(onPress) {
    this.tiles = Array.from({ length: TILES }, () => new Tile(onPress));
    this.items = this.tiles.map((tile) => make("li", { hidden: true }, tile.element));
    byId("strip").append(...this.items);
    this.waiting = [];
    this.skipped = 0;
    this.held = false;
    byId("hold").addEventListener("click", () => this.hold(!this.held));
    byId("opacity").addEventListener("input", () => this.redraw());
    setInterval(() => this.move(), MOVE_MS);
  }

  fill(parts) {
    for (const part of parts.slice(-TILES)) this.push(part);
  }

  add(parts) {
    this.waiting.push(...parts.filter((part) => !part.late));
  }

  hold(held) {
    this.held = held;
    byId("hold").setAttribute("aria-pressed", String(held));
    if (!held) this.waiting = this.waiting.slice(-STEP);
  }

  move() {
    if (this.held) {
      this.waiting = this.waiting.slice(-STEP);
      setText(byId("belt-note"), "held: the belt goes on");
      return;
    }
    const arrived = this.waiting;
    this.waiting = [];
    if (!arrived.length || document.hidden) return;
    const shown = choose(arrived);
    const left = arrived.length - shown.length;
    setText(byId("belt-note"), left ? `newest first · ${shown.length} of ${arrived.length} parts shown` : "newest first");
    for (const part of shown) this.push(part);
  }

  // The tile that leaves at the end comes back at the front: nothing is made anew.
  push(part) {
    const tile = this.tiles.pop();
    const item = this.items.pop();
    this.tiles.unshift(tile);
    this.items.unshift(item);
    tile.opacity = this.opacity();
    tile.show(part).then(() => {
      item.hidden = false;
      byId("strip").prepend(...this.items.filter((each) => !each.hidden));
    });
  }

  opacity() {
    return Number(byId("opacity").value) / 100;
  }

  redraw() {
    for (const tile of this.tiles) tile.redraw(this.opacity());
  }
}

// At most STEP of them, in their order; of OK parts only as many as rejected ones leave room for.
function choose(parts) {
  const newest = parts.toReversed();
  const wanted = [...newest.filter((part) => part.decision !== "OK"), ...newest.filter((part) => part.decision === "OK")];
  const chosen = new Set(wanted.slice(0, STEP));
  return parts.filter((part) => chosen.has(part));
}
