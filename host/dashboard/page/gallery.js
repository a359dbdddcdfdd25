// Parts of the history, filtered, a page at a time.

import { get } from "./api.js";
import { byId, make, say, setText } from "./dom.js";
import { Tile } from "./tile.js";

const PAGE = 48;

export class Gallery {
  constructor(onPress) {
    this.onPress = onPress;
    this.tiles = [];
    this.last = null; // seq of the oldest part on the page
    byId("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      this.show();
    });
    byId("filters").addEventListener("input", () => this.aim());
    byId("newest").addEventListener("click", () => this.show());
    byId("older").addEventListener("click", () => this.show(this.last));
  }

  async show(before = null) {
    this.aim();
    const query = this.query();
    if (before) query.set("before", before);
    query.set("count", PAGE);
    try {
      this.fill(await get(`/api/parts?${query}`));
    } catch (error) {
      say(error.message, "bad");
    }
  }

  // The table has what the filters say now, shown or not.
  aim() {
    byId("export").href = `/api/export.csv?${this.query()}`;
  }

  fill(parts) {
    for (const tile of this.tiles) tile.close();
    this.tiles = parts.map((part) => {
      const tile = new Tile(this.onPress);
      tile.show(part);
      return tile;
    });
    byId("gallery").replaceChildren(...this.tiles.map((tile) => make("li", {}, tile.element)));
    this.last = parts.at(-1)?.seq ?? null;
    byId("older").disabled = parts.length < PAGE;
    setText(byId("parts-note"), parts.length ? `${parts.length} parts, newest first` : "no such parts");
  }

  query() {
    const form = new FormData(byId("filters"));
    const query = new URLSearchParams();
    if (form.has("decision")) query.set("decision", form.getAll("decision").join(","));
    for (const name of ["lowest", "highest", "model"]) if (form.get(name)) query.set(name, form.get(name));
    for (const name of ["begin", "end"]) if (form.get(name)) query.set(name, new Date(form.get(name)).toISOString());
    return query;
  }
}
