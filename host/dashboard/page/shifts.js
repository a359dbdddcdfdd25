// Totals of each shift, the present one first.

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { clock, count, day, share } from "./words.js";

export async function showShifts() {
  const rows = (await get("/api/shifts")).map((shift) => {
    const parts = shift.OK + shift.REJECT + shift.UNKNOWN;
    const cells = [`${day(shift.shift)} ${clock(shift.shift)}`, count(parts), count(shift.REJECT), count(shift.UNKNOWN), share((shift.REJECT + shift.UNKNOWN) / parts)];
    return make("tr", {}, ...cells.map((text) => make("td", { textContent: text })));
  });
  byId("shift-rows").replaceChildren(...rows);
}
