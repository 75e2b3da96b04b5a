// The frontier as a drawing: accuracy over eFLOPs on a logarithmic axis.

import { shape } from "./dom.js";
import { forPeople, percent } from "./numbers.js";

const HEIGHT = 280;
const MARGIN = { left: 52, right: 14, top: 12, bottom: 42 };
const LABEL_PX = 84; // what a label of the lower axis needs

/** points: of the calibration. request: what it spent and the accuracy expected, or null. width: in pixels. */
export function scatter(points, request, width) {
  const costs = points.map((point) => point.spent_eflops.mean);
  if (request) costs.push(request.spent);
  const low = Math.log10(Math.min(...costs)) - 0.1;
  const high = Math.log10(Math.max(...costs)) + 0.1;
  const x = (cost) => MARGIN.left + ((Math.log10(cost) - low) / (high - low)) * (width - MARGIN.left - MARGIN.right);
  const y = (accuracy) => MARGIN.top + (1 - accuracy) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const drawing = shape("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    width,
    height: HEIGHT,
    role: "img",
    "aria-labelledby": "frontier-title",
    "aria-describedby": "frontier-text",
  });
  drawing.append(...axes(x, y, low, high, width), ...points.map((point) => dot(point, x, y)), line(points, x, y));
  if (request) drawing.append(...here(request, x, y, width));
  return drawing;
}

function axes(x, y, low, high, width) {
  const drawn = [];
  for (const accuracy of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(accuracy);
    drawn.push(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    drawn.push(shape("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, percent(accuracy)));
  }
  const ticks = Math.max(2, Math.floor((width - MARGIN.left) / LABEL_PX));
  for (let tick = 0; tick < ticks; tick++) {
    const cost = 10 ** (low + ((high - low) * (tick + 0.5)) / ticks);
    const at = x(cost);
    drawn.push(shape("line", { class: "grid", x1: at, x2: at, y1: y(0), y2: y(0) + 5 }));
    drawn.push(shape("text", { x: at, y: y(0) + 18, "text-anchor": "middle" }, forPeople(cost)));
  }
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  drawn.push(shape("text", { x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, "eFLOPs of a question"));
  return drawn;
}

/** Dense attention as a disc, sparse as a square: not by color alone. */
function dot(point, x, y) {
  const [at, up] = [x(point.spent_eflops.mean), y(point.accuracy.mean)];
  const kind = point.on_frontier ? "dot best" : "dot";
  if (point.kv_budget === "dense") return shape("circle", { class: kind, cx: at, cy: up, r: 3.5 });
  return shape("rect", { class: kind, x: at - 3, y: up - 3, width: 6, height: 6 });
}

function line(points, x, y) {
  const best = points.filter((point) => point.on_frontier);
  let path = "";
  for (const point of best) {
    const [at, up] = [x(point.spent_eflops.mean), y(point.accuracy.mean)];
    path += path ? `H${at}V${up}` : `M${at} ${up}`;
  }
  return shape("path", { class: "frontier-line", d: path });
}

function here(request, x, y, width) {
  const at = x(request.spent);
  const drawn = [shape("line", { class: "here", x1: at, x2: at, y1: y(1), y2: y(0) })];
  if (request.accuracy !== null) {
    const up = y(request.accuracy);
    drawn.push(shape("path", { class: "here-point", d: `M${at} ${up - 8}l8 8l-8 8l-8 -8z` }));
  }
  const side = at > width / 2 ? { x: at - 8, "text-anchor": "end" } : { x: at + 8, "text-anchor": "start" };
  drawn.push(shape("text", { class: "here-label", y: y(1) + 14, ...side }, "your request"));
  return drawn;
}
