// One part as a tile: picture with heat-map, decision as sign and word, score. Pressed, it shows the part.

import { make, setText, sign } from "./dom.js";
import { draw, loadPart } from "./heat.js";
import { score, time } from "./words.js";

const SIDE_PX = 256;
const EMPTY = { bitmap: null, map: null };

export class Tile {
  constructor(onPress) {
    this.canvas = make("canvas", { width: SIDE_PX, height: SIDE_PX, "aria-hidden": "true" });
    this.word = make("span");
    this.score = make("span", { className: "score" });
    this.number = make("span");
    this.time = make("span");
    this.missing = make("span", { className: "no-picture", textContent: "no picture kept" });
    this.label = make("span", { className: "tile-label" });
    this.element = make("button", { className: "tile", type: "button" }, this.canvas, this.missing, this.label,
      make("span", { className: "tile-sub" }, this.number, this.time));
    this.element.addEventListener("click", () => onPress(this.part));
    this.part = null;
    this.content = EMPTY;
    this.opacity = 0.6;
  }

  async show(part) {
    if (this.part?.key === part.key) return;
    this.part = part;
    const content = part.has_picture ? await loadPart(part.key).catch(() => EMPTY) : EMPTY;
    if (this.part !== part) { // another one came meanwhile
      content.bitmap?.close();
      return;
    }
    this.content.bitmap?.close();
    this.content = content;
    this.label.replaceChildren(sign(part.decision), this.word, this.score);
    this.element.dataset.decision = part.decision;
    setText(this.word, part.decision);
    setText(this.score, score(part.score));
    setText(this.number, `#${part.part_id}`);
    setText(this.time, time(part.time));
    this.element.setAttribute("aria-label", `part ${part.part_id}, ${part.decision}, score ${score(part.score)}`);
    this.missing.hidden = content.bitmap !== null;
    this.redraw(this.opacity);
  }

  redraw(opacity) {
    this.opacity = opacity;
    if (this.part) draw(this.canvas, this.content, this.part, opacity);
  }

  // Forget the picture: canvases and bitmaps of pages that were turned are not kept.
  close() {
    this.part = null;
    this.content.bitmap?.close();
    this.content = EMPTY;
  }
}
