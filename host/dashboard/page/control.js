// Orders to the line: threshold with a preview, pause, capture, model. And who ordered what.

import { get, post } from "./api.js";
import { confirm } from "./confirm.js";
import { byId, make, say, setText } from "./dom.js";
import { isLoggedIn } from "./session.js";
import { Tile } from "./tile.js";
import { count, moment, score, share } from "./words.js";

const PREVIEW_MS = 250; // after the last move of the slider
const TILES = 12;
const rounded = (value) => String(Number(value.toPrecision(4)));
// A change of model is no more than begun when it is answered: it may go back after its trial.
const SAID = {
  model: "the new model judges, on trial: if it does not pass, the one before comes back and it is said here",
  rollback: "the model before judges again",
};
const FIGURES = { recall: "finds", false_reject_rate: "false rejects", image_auroc: "AUROC" };

function lastChallenge(report) {
  if (!report) return "";
  const result = report.passed ? "passed" : `not passed: ${report.reason}`;
  return `Last: ${moment(report.time)}, ${report.rejected} of ${report.parts} rejected, ${result}.`;
}

export class Control {
  constructor(onPress) {
    this.onPress = onPress;
    this.threshold = null; // the line's own, as is its model
    this.offered = null; // the last of its thresholds that slider and number began with
    this.model = "";
    this.takenBack = "";
    this.asked = 0;
    this.tiles = [];
    this.timer = 0;
    byId("threshold-slider").addEventListener("input", () => this.choose(rounded(byId("threshold-slider").valueAsNumber)));
    byId("threshold").addEventListener("input", () => this.choose(byId("threshold").value));
    byId("set-threshold").addEventListener("click", () => this.setThreshold());
    byId("pause").addEventListener("click", () => this.order("Pause the line?", "From then on every part is rejected.", "pause", {}));
    byId("resume").addEventListener("click", () => this.order("Resume?", "Parts are judged again.", "resume", {}));
    byId("capture").addEventListener("click", () => this.capture());
    byId("teach").addEventListener("click", () => this.teach());
    byId("challenge").addEventListener("click", () => this.challenge());
    byId("set-model").addEventListener("click", () => this.setModel());
    byId("rollback").addEventListener("click", () => this.order("Back to the model before?", "The station tests it first, unless it still stands by.", "rollback", {}));
    byId("model").addEventListener("change", () => this.showModel());
    this.models = [];
  }

  async open() {
    if (byId("threshold").value) this.preview();
    this.models = await get("/api/models");
    byId("model").replaceChildren(...this.models.map((model) => make("option", { value: model.id, textContent: model.id })));
    this.labelModels(this.model);
    this.showModel();
    if (this.threshold !== null) this.offer(); // within what its model can say
    await this.showAudit();
  }

  note(summary) {
    this.threshold = summary.threshold;
    if (this.model !== summary.model_id) this.labelModels(summary.model_id);
    byId("taken-back").hidden = !summary.taken_back;
    setText(byId("taken-back"), `The last change of model was taken back: ${summary.taken_back}.`);
    if (summary.taken_back && summary.taken_back !== this.takenBack) say(byId("taken-back").textContent, "bad");
    this.takenBack = summary.taken_back;
    setText(byId("threshold-now"), score(this.threshold));
    if (this.threshold !== null && this.threshold !== this.offered) this.offer();
    setText(byId("challenge-last"), lastChallenge(summary.challenge));
    const lesson = summary.health.lesson_parts_left;
    setText(byId("teach-left"), lesson ? `Learning: ${count(lesson)} good parts are still to come.` : "");
    const left = summary.health.capture_parts_left;
    setText(byId("capture-left"), left ? `Under way: ${count(left)} good parts are still to come.` : "");
  }

  // The line's threshold is known, or became another: begin with it.
  offer() {
    this.offered = this.threshold;
    const slider = byId("threshold-slider");
    const { lowest = -Infinity, highest = Infinity } = this.models.find((each) => each.id === this.model) ?? {};
    slider.min = Math.max(lowest, Math.min(0, 2 * this.threshold));
    slider.max = Math.min(highest, Math.max(4 * this.threshold, this.threshold + 1));
    this.choose(rounded(this.threshold));
  }

  choose(text) {
    byId("threshold-slider").value = text;
    byId("threshold").value = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => byId("view-control").hidden || this.preview(), PREVIEW_MS);
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

  teach() {
    const parts = Number(byId("teach-parts").value), model = byId("teach-model").value.trim();
    const what = `The next ${parts} parts must be good ones. Every part is rejected until ${model} judges.`;
    this.order("Teach a model?", what, "teach", { parts, model });
  }

  challenge() {
    const parts = Number(byId("challenge-parts").value);
    this.order("Challenge the line?", `The next ${parts} parts are known bad, and must be rejected at the gate.`, "challenge", { parts });
  }

  setModel() {
    const model = byId("model").value;
    this.order("Switch the model?", `To ${model}. The station tests it first; this takes some seconds.`, "model", { model });
  }

  labelModels(running) {
    this.model = running;
    for (const option of byId("model").options) option.textContent = option.value === running ? `${option.value} (running)` : option.value;
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
        return SAID[name] ?? `done: ${name}`;
      } catch (error) {
        if (fields.confirmed || !error.message.includes("confirmed = true")) throw error;
        setTimeout(() => this.order("Confirm it all the same?", error.message, name, { ...fields, confirmed: true }));
        return `not done: ${name}`;
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
