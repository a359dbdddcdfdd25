// Orders to the line: threshold with a preview, pause, capture, model. And who ordered what.

import { get, post } from "./api.js";
import { confirm } from "./confirm.js";
import { byId, make, say, setText } from "./dom.js";
import { isLoggedIn } from "./session.js";
import { Tile } from "./tile.js";
import { moment, score, share } from "./words.js";

const PREVIEW_MS = 250; // after the last move of the slider
const TILES = 12;
const FIGURES = { recall: "finds", false_reject_rate: "false rejects", image_auroc: "AUROC" };

export class Control {
  constructor(onPress) {
    this.onPress = onPress;
    this.threshold = null; // the line's own, as is its model
    this.model = "";
    this.asked = 0;
    this.tiles = [];
    this.timer = 0;
    byId("threshold-slider").addEventListener("input", () => this.choose(byId("threshold-slider").value));
    byId("threshold").addEventListener("input", () => this.choose(byId("threshold").value));
    byId("set-threshold").addEventListener("click", () => this.setThreshold());
    byId("pause").addEventListener("click", () => this.order("Pause the line?", "From then on every part is rejected.", "pause", {}));
    byId("resume").addEventListener("click", () => this.order("Resume?", "Parts are judged again.", "resume", {}));
    byId("capture").addEventListener("click", () => this.capture());
    byId("set-model").addEventListener("click", () => this.setModel());
    byId("rollback").addEventListener("click", () => this.order("Back to the model before?", "The station tests it first, unless it still stands by.", "rollback", {}));
    byId("model").addEventListener("change", () => this.showModel());
    this.models = [];
  }

  async open() {
    const slider = byId("threshold-slider");
    if (this.threshold !== null && !byId("threshold").value) {
      slider.max = Math.max(4 * this.threshold, this.threshold + 1).toFixed(2);
      slider.min = 0;
      this.choose(this.threshold.toFixed(2));
    }
    this.models = await get("/api/models");
    byId("model").replaceChildren(...this.models.map((model) => make("option", { value: model.id, textContent: model.id === this.model ? `${model.id} (running)` : model.id })));
    this.showModel();
    await this.showAudit();
  }

  note(summary) {
    this.threshold = summary.threshold;
    this.model = summary.model_id;
    setText(byId("threshold-now"), score(this.threshold));
  }

  choose(text) {
    byId("threshold-slider").value = text;
    byId("threshold").value = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.preview(), PREVIEW_MS);
  }

  async preview() {
    const asked = this.asked += 1;
    try {
      const preview = await get(`/api/preview?threshold=${encodeURIComponent(byId("threshold").value)}`);
      if (asked === this.asked) await this.showPreview(preview);
    } catch (error) {
      setText(byId("preview"), error.message);
    }
  }

  async showPreview(preview) {
    const { parts, rejects_now: now, rejects_then: then } = preview;
    setText(byId("preview"), parts
      ? `Of the last ${parts} judged parts ${then} would have been rejected instead of ${now}: ${preview.to_reject.length} more rejected, ${preview.to_ok.length} more passed.`
      : "No parts of this model yet.");
    for (const tile of this.tiles) tile.close();
    const keys = [...preview.to_ok, ...preview.to_reject].slice(-TILES);
    const changed = await Promise.all(keys.map((key) => get(`/api/parts/${key}`).catch(() => null)));
    this.tiles = changed.filter(Boolean).map((part) => {
      const tile = new Tile(this.onPress);
      tile.show({ ...part, has_picture: part.has_jpg });
      return tile;
    });
    byId("preview-parts").replaceChildren(...this.tiles.map((tile) => make("li", {}, tile.element)));
  }

  setThreshold() {
    const value = Number(byId("threshold").value);
    if (!byId("threshold").value || !Number.isFinite(value)) {
      say("give a number for the threshold", "bad");
      return;
    }
    this.order("Set the threshold?", `From ${score(this.threshold)} to ${value}. ${byId("preview").textContent}`, "threshold", { value });
  }

  capture() {
    const parts = Number(byId("capture-parts").value);
    this.order("Capture good parts?", `The next ${parts} parts that are OK are recorded.`, "capture", { parts });
  }

  setModel() {
    const model = byId("model").value;
    this.order("Switch the model?", `To ${model}. The station tests it first; this takes some seconds.`, "model", { model });
  }

  showModel() {
    const model = this.models.find((each) => each.id === byId("model").value);
    const figures = Object.entries(FIGURES).filter(([name]) => name in (model?.figures ?? {}));
    const texts = figures.map(([name, word]) => `${word} ${share(model.figures[name])}`);
    setText(byId("model-figures"), model ? [`threshold ${score(model.threshold)}`, ...texts].join(", ") : "");
  }

  order(title, text, name, fields) {
    confirm(title, text, async () => {
      try {
        await post(`/api/orders/${name}`, fields);
        return `done: ${name}`;
      } finally {
        this.showAudit();
      }
    });
  }

  async showAudit() {
    if (!isLoggedIn()) {
      byId("audit-rows").replaceChildren(make("tr", {}, make("td", { colSpan: 5, textContent: "log in to see it" })));
      return;
    }
    const entries = await get("/api/audit").catch(() => []);
    byId("audit-rows").replaceChildren(...entries.map((entry) => {
      const fields = Object.entries(entry.details).map(([name, value]) => `${name} ${value}`).join(", ");
      const cells = [moment(entry.time), entry.user, entry.address, `${entry.action} ${fields}`, entry.outcome];
      return make("tr", {}, ...cells.map((text) => make("td", { textContent: text })));
    }));
  }
}
