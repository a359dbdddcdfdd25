// The line's state in large letters, and its figures.

import { byId, say, setText } from "./dom.js";
import { clock, count, number, score, share } from "./words.js";

// What to do next, beside the reason, which says what is wrong.
const NEXT = {
  running: "",
  idle: "Look whether the belt runs and parts reach the light barrier. Nothing to do if the line is meant to stand.",
  degraded: "Parts are judged, with less behind it: mend what is named here, soon.",
  alarm: "Do not trust the verdicts. Look at the last parts below and at the camera; when it is right again, press Resume under Control.",
  stopped: "Every part is rejected. If somebody paused the line, press Resume under Control; else mend what is named here.",
  lost: "Go and look at the line: nothing is known of it from here.",
};

export function showState(state, reason) {
  const band = byId("band");
  if (band.dataset.state !== state) {
    band.dataset.state = state;
    byId("band-sign").setAttribute("href", `#sign-${state}`);
    document.title = `${state} · Beltsight`;
  }
  setText(byId("state"), state);
  setText(byId("reason"), reason);
  const next = NEXT[state] ?? "This page does not know this state: load it again.";
  byId("next").hidden = !next;
  setText(byId("next"), next);
}

export function showSummary(summary) {
  const rate = `${number(summary.parts_per_s, 1)} parts/s, ${share(summary.reject_rate)} of the last ${summary.over_parts} rejected`;
  showState(summary.state, summary.reason || rate);
  setText(byId("where"), `${summary.site} · ${summary.line}`);
  byId("trouble").hidden = !summary.trouble;
  setText(byId("trouble"), summary.trouble);
  byId("drift").hidden = !summary.drift;
  setText(byId("drift-text"), summary.drift);
  const shift = summary.shift;
  const parts = shift && shift.OK + shift.REJECT + shift.UNKNOWN;
  setText(byId("fig-parts"), count(parts));
  setText(byId("fig-shift"), shift ? `since ${clock(shift.shift)}` : "");
  setText(byId("fig-rejected"), count(shift?.REJECT));
  setText(byId("fig-rate"), parts ? `${share(shift.REJECT / parts)} of the shift` : "");
  setText(byId("fig-unknown"), count(shift?.UNKNOWN));
  setText(byId("fig-speed"), number(summary.parts_per_s, 1));
  setText(byId("fig-p50"), number(summary.latency_p50_ms, 1));
  setText(byId("fig-p99"), `p99 ${number(summary.latency_p99_ms, 1)}`);
  setText(byId("fig-threshold"), score(summary.threshold));
  setText(byId("fig-known-bad"), proof(summary.health));
  setText(byId("fig-model"), summary.model_id || "–");
  setText(byId("fig-engine"), summary.engine || "–");
}

// That bad parts are still rejected at this threshold.
function proof({ known_bad_parts: parts, known_bad_found: found }) {
  if (parts === undefined || found === undefined) return "reject from here on";
  return parts ? `finds ${found} of ${parts} known-bad` : "no known-bad parts";
}

export function prepareDrift() {
  byId("show-drift").addEventListener("click", async () => {
    const response = await fetch("/api/drift.jpg");
    if (!response.ok) {
      say((await response.json()).error, "bad");
      return;
    }
    byId("drift-picture").src = `/api/drift.jpg?${Date.now()}`; // it is another one each time
    byId("drift-dialog").showModal();
  });
}

export function showClock() {
  setText(byId("clock"), new Date().toLocaleTimeString("en-GB"));
}
