// Review of a capture: what is not a good part is dropped before anything is learnt from it.

import { get, post } from "./api.js";
import { confirm } from "./confirm.js";
import { byId, make, say, setText, sign } from "./dom.js";
import { score } from "./words.js";

export class Captures {
  constructor() {
    this.dropped = new Set();
    this.pictures = [];
    byId("capture-name").addEventListener("change", () => this.show());
    byId("keep").addEventListener("click", () => this.keep());
  }

  async open() {
    const captures = await get("/api/captures");
    const options = captures.map(({ name, reviewed }) => make("option", { value: name, textContent: reviewed === null ? name : `${name} (${reviewed} kept)` }));
    byId("capture-name").replaceChildren(...options);
    await this.show();
  }

  async show() {
    const name = byId("capture-name").value;
    this.dropped.clear();
    try {
      this.pictures = name ? await get(`/api/captures/${encodeURIComponent(name)}`) : [];
    } catch (error) {
      this.pictures = [];
      say(error.message, "bad");
    }
    byId("captured").replaceChildren(...this.pictures.map((picture) => this.tile(name, picture)));
    this.note();
  }

  tile(name, picture) {
    const label = make("span", { className: "tile-label" });
    const image = make("img", { src: `/captures/${encodeURIComponent(name)}/${picture.number}.jpg`, alt: "", loading: "lazy" });
    const button = make("button", { type: "button", className: "tile captured" }, image, label,
      make("span", { className: "tile-sub" }, make("span", { textContent: `#${picture.part_id}` }), make("span", { textContent: score(picture.score) })));
    const mark = () => {
      const isDropped = this.dropped.has(picture.number);
      button.classList.toggle("dropped", isDropped);
      button.setAttribute("aria-pressed", String(isDropped));
      button.setAttribute("aria-label", `drop part ${picture.part_id}, score ${score(picture.score)}`);
      label.replaceChildren(sign(isDropped ? "REJECT" : "OK"), isDropped ? "dropped" : "kept");
    };
    button.addEventListener("click", () => {
      if (!this.dropped.delete(picture.number)) this.dropped.add(picture.number);
      mark();
      this.note();
    });
    mark();
    return make("li", {}, button);
  }

  note() {
    const kept = this.pictures.length - this.dropped.size;
    setText(byId("capture-note"), this.pictures.length ? `${kept} of ${this.pictures.length} pictures kept` : "no capture");
    byId("keep").disabled = kept === 0;
  }

  keep() {
    const name = byId("capture-name").value;
    const kept = this.pictures.length - this.dropped.size;
    const text = `${kept} pictures are written to ${name}/reviewed, for scripts/export.sh --data. ${this.dropped.size} are left out.`;
    confirm("Keep these?", text, async () => {
      const answer = await post(`/api/captures/${encodeURIComponent(name)}/review`, { dropped: [...this.dropped] });
      return `done: ${answer.kept} pictures kept`;
    });
  }
}
