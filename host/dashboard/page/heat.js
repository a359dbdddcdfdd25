// A part's picture under its heat-map, with the line where the map reaches the threshold.

import { get } from "./api.js";

const MAP_HEAD_BYTES = 12;
const WHOLE = { top: 0, left: 0, height: 1, width: 1 };
const small = new OffscreenCanvas(1, 1); // for one map at a time
const crops = new Map(); // model id → what part of the frame its map covers, in shares of the frame

export async function learnCrops() {
  for (const model of await get("/api/models")) {
    const [height, width] = model.frame_px;
    const [top, left, cropHeight, cropWidth] = model.crop_px;
    crops.set(model.id, { top: top / height, left: left / width, height: cropHeight / height, width: cropWidth / width });
  }
}

// {bitmap, map}, each null where it is not kept. Whoever loads it closes the bitmap.
export async function loadPart(key) {
  const [bitmap, map] = await Promise.all([loadPicture(`/pictures/${key}.jpg`), loadMap(`/pictures/${key}.map`)]);
  return { bitmap, map };
}

async function loadPicture(path) {
  const response = await fetch(path);
  return response.ok ? createImageBitmap(await response.blob()) : null;
}

async function loadMap(path) {
  const response = await fetch(path);
  if (!response.ok) return null;
  const data = new DataView(await response.arrayBuffer());
  const [rows, columns, scale] = [data.getUint16(0, true), data.getUint16(2, true), data.getFloat64(4, true)];
  const values = Float32Array.from(new Int8Array(data.buffer, MAP_HEAD_BYTES, rows * columns), (value) => value * scale);
  return { rows, columns, values };
}

export function draw(canvas, { bitmap, map }, part, opacity) {
  const paper = canvas.getContext("2d");
  paper.clearRect(0, 0, canvas.width, canvas.height);
  if (!bitmap) return;
  const fit = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
  const [width, height] = [bitmap.width * fit, bitmap.height * fit];
  const [x, y] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  paper.drawImage(bitmap, x, y, width, height);
  if (!map || opacity <= 0) return;
  const crop = crops.get(part.model_id) ?? WHOLE;
  const box = { x: x + crop.left * width, y: y + crop.top * height, width: crop.width * width, height: crop.height * height };
  paper.globalAlpha = opacity;
  paper.drawImage(colour(map, part.threshold), box.x, box.y, box.width, box.height);
  paper.globalAlpha = 1;
  drawContour(paper, map, part.threshold, box);
}

// Yellow well below the threshold, red at it, violet far above; clear where the part looks good.
function colour(map, threshold) {
  const image = new ImageData(map.columns, map.rows);
  const span = Math.max(Math.abs(threshold), 1e-6);
  map.values.forEach((value, at) => {
    const heat = Math.min(1, Math.max(0, (value - threshold) / span / 2 + 0.5));
    const after = Math.max(0, heat - 0.5) * 2;
    image.data.set([255 - 110 * after, 210 * Math.max(0, 1 - 2 * heat), 170 * after, 255 * Math.min(1, heat * 1.7)], 4 * at);
  });
  if (small.width !== map.columns || small.height !== map.rows) [small.width, small.height] = [map.columns, map.rows];
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

// Marching squares between the centres of the map's pixels.
function drawContour(paper, map, threshold, box) {
  const path = new Path2D();
  const [cellX, cellY] = [box.width / map.columns, box.height / map.rows];
  for (let row = -1; row < map.rows; row += 1) {
    for (let column = -1; column < map.columns; column += 1) {
      const ends = crossings(map, row, column, threshold);
      for (let at = 0; at + 1 < ends.length; at += 2) {
        path.moveTo(box.x + (ends[at][0] + 0.5) * cellX, box.y + (ends[at][1] + 0.5) * cellY);
        path.lineTo(box.x + (ends[at + 1][0] + 0.5) * cellX, box.y + (ends[at + 1][1] + 0.5) * cellY);
      }
    }
  }
  const scale = Math.max(1, paper.canvas.width / 256);
  for (const [style, width] of [["#000", 3.5], ["#fff", 1.8]]) {
    paper.strokeStyle = style;
    paper.lineWidth = width * scale;
    paper.stroke(path);
  }
}

// Where the threshold crosses the four sides of a cell, in pairs; outside the map everything is below it.
function crossings(map, row, column, threshold) {
  const value = (r, c) => (r < 0 || c < 0 || r >= map.rows || c >= map.columns ? -Infinity : map.values[r * map.columns + c]);
  const corners = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
  const found = [];
  corners.forEach(([r, c], at) => {
    const [nextR, nextC] = corners[(at + 1) % 4];
    const [here, next] = [value(r, c), value(nextR, nextC)];
    if ((here >= threshold) === (next >= threshold)) return;
    const way = Number.isFinite(here) && Number.isFinite(next) ? (threshold - here) / (next - here) : 0.5;
    found.push([c + way * (nextC - c), r + way * (nextR - r)]);
  });
  return found;
}
