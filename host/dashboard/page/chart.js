// Scores of the last parts with the threshold they were judged by. Each decision has a shape of its own.

import { byId } from "./dom.js";
import { score } from "./words.js";

const KEPT = 500;
const DRAW_MS = 500;
const INK = "#14202b", SOFT = "#4a5a68", GRID = "#dfe6eb", OK = "#3b7ea8", REJECT = "#b5121b", UNKNOWN = "#ffc61a";
const EDGE = { top: 10, right: 62, bottom: 22, left: 44 };

export class Chart {
  constructor() {
    this.canvas = byId("chart");
    this.parts = [];
    this.isStale = true;
    new ResizeObserver(() => { this.isStale = true; }).observe(this.canvas);
    setInterval(() => this.drawWhenStale(), DRAW_MS);
  }

  add(parts) {
    this.parts.push(...parts);
    this.parts.splice(0, this.parts.length - KEPT);
    this.isStale = true;
  }

  drawWhenStale() {
    if (!this.isStale || document.hidden || !this.canvas.offsetWidth) return;
    this.isStale = false;
    const ratio = window.devicePixelRatio;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const paper = this.canvas.getContext("2d");
    const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== across || this.canvas.height !== down) [this.canvas.width, this.canvas.height] = [across, down];
    paper.setTransform(ratio, 0, 0, ratio, 0, 0);
    paper.clearRect(0, 0, width, height);
    paper.font = `13px ${getComputedStyle(document.documentElement).fontFamily}`;
    this.draw(paper, width, height);
    this.describe();
  }

  draw(paper, width, height) {
    const range = span(this.parts);
    const across = width - EDGE.left - EDGE.right;
    const down = height - EDGE.top - EDGE.bottom;
    const x = (at) => EDGE.left + ((at + KEPT - this.parts.length + 0.5) / KEPT) * across;
    const y = (value) => EDGE.top + (1 - (Math.min(range.high, Math.max(range.low, value)) - range.low) / (range.high - range.low)) * down;
    drawGrid(paper, range, y, EDGE.left + across);
    paper.fillStyle = SOFT;
    paper.textBaseline = "alphabetic";
    paper.fillText("500 parts ago", EDGE.left, height - 6);
    paper.textAlign = "right";
    paper.fillText("now", EDGE.left + across, height - 6);
    this.parts.forEach((part, at) => drawMark(paper, part, x(at), part.score === null ? EDGE.top + down : y(part.score)));
    drawThreshold(paper, this.parts, x, y, EDGE.left + across);
  }

  describe() {
    const rejects = this.parts.filter((part) => part.decision === "REJECT").length;
    const unknown = this.parts.filter((part) => part.decision === "UNKNOWN").length;
    const threshold = this.parts.at(-1)?.threshold;
    const text = `scores of the last ${this.parts.length} parts: ${rejects} rejected, ${unknown} unknown, threshold ${score(threshold)}`;
    this.canvas.setAttribute("aria-label", text);
  }
}

// From the lowest score to a little above the threshold or the 98th percentile: one giant does not flatten the rest.
function span(parts) {
  const scores = parts.map((part) => part.score).filter((value) => value !== null).sort((a, b) => a - b);
  const thresholds = parts.map((part) => part.threshold);
  if (!scores.length) return { low: 0, high: 1 };
  const low = Math.min(0, scores[0]);
  const high = Math.max(scores[Math.floor(scores.length * 0.98)], ...thresholds) * 1.15;
  return { low, high: Math.max(high, low + 1e-6) };
}

function drawGrid(paper, range, y, right) {
  const step = niceStep((range.high - range.low) / 4);
  paper.textBaseline = "middle";
  paper.textAlign = "right";
  for (let value = Math.ceil(range.low / step) * step; value <= range.high; value += step) {
    paper.strokeStyle = GRID;
    paper.lineWidth = 1;
    paper.beginPath();
    paper.moveTo(EDGE.left, y(value));
    paper.lineTo(right, y(value));
    paper.stroke();
    paper.fillStyle = SOFT;
    paper.fillText(String(Number(value.toPrecision(6))), EDGE.left - 8, y(value));
  }
  paper.textAlign = "left";
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough));
}

function drawMark(paper, part, x, y) {
  paper.beginPath();
  if (part.decision === "OK") {
    paper.fillStyle = OK;
    paper.arc(x, y, 2.2, 0, 7);
    paper.fill();
  } else if (part.decision === "REJECT") {
    paper.strokeStyle = REJECT;
    paper.lineWidth = 2.5;
    paper.moveTo(x - 4, y - 4);
    paper.lineTo(x + 4, y + 4);
    paper.moveTo(x + 4, y - 4);
    paper.lineTo(x - 4, y + 4);
    paper.stroke();
  } else {
    paper.fillStyle = UNKNOWN;
    paper.strokeStyle = "#6b4700";
    paper.lineWidth = 1.5;
    paper.moveTo(x, y - 6);
    paper.lineTo(x + 5, y - 1);
    paper.lineTo(x, y + 4);
    paper.lineTo(x - 5, y - 1);
    paper.closePath();
    paper.fill();
    paper.stroke();
  }
}

function drawThreshold(paper, parts, x, y, right) {
  if (!parts.length) return;
  paper.strokeStyle = INK;
  paper.lineWidth = 2.5;
  paper.setLineDash([9, 5]);
  paper.beginPath();
  parts.forEach((part, at) => {
    if (at === 0) paper.moveTo(x(-0.5), y(part.threshold));
    else if (part.threshold !== parts[at - 1].threshold) {
      paper.lineTo(x(at - 0.5), y(parts[at - 1].threshold));
      paper.lineTo(x(at - 0.5), y(part.threshold));
    }
  });
  paper.lineTo(right, y(parts.at(-1).threshold));
  paper.stroke();
  paper.setLineDash([]);
  paper.fillStyle = INK;
  paper.textAlign = "left";
  paper.textBaseline = "middle";
  const font = paper.font;
  paper.font = `700 16px ${font.slice(font.indexOf(" ") + 1)}`;
  paper.fillText(score(parts.at(-1).threshold), right + 8, y(parts.at(-1).threshold));
  paper.font = font;
}
