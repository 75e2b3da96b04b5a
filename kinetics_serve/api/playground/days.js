// eFLOPs by day as a drawing: a bar for each day on which something was spent.

import { shape } from "./dom.js";
import { eflops, forPeople } from "./numbers.js";

const HEIGHT = 180;
const MARGIN = { left: 64, right: 14, top: 12, bottom: 24 };
const LABEL_PX = 92; // what a date needs
const WIDEST_PX = 48; // a bar, where there are few days
const DAY_MS = 86400e3;

const number = (day) => Date.parse(day) / DAY_MS;

/** spent: eFLOPs by day, as 2026-01-31. since, until: what is asked for; what was spent outside is drawn too. */
export function bars(spent, since, until, width) {
  const days = [...spent.keys()].sort();
  const first = Math.min(number(days[0]), number(since) || Infinity);
  const last = Math.max(number(days.at(-1)), number(until) || -Infinity);
  const most = Math.max(...spent.values(), 1);
  const step = (width - MARGIN.left - MARGIN.right) / (last - first + 1);
  const x = (day) => MARGIN.left + (day - first + 0.5) * step;
  const y = (amount) => MARGIN.top + (1 - amount / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const drawing = shape("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    width,
    height: HEIGHT,
    role: "img",
    "aria-label": "eFLOPs by day",
    "aria-describedby": "spending-text",
  });
  for (const part of [0, 0.5, 1]) {
    const at = y(part * most);
    drawing.append(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    drawing.append(shape("text", { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }, forPeople(part * most)));
  }
  const thick = Math.max(1, Math.min(WIDEST_PX, 0.8 * step));
  for (const [day, amount] of spent) {
    const top = y(amount);
    const left = x(number(day)) - thick / 2;
    const bar = shape("rect", { class: "day", x: left, y: top, width: thick, height: y(0) - top });
    bar.append(shape("title", {}, `${day}: ${eflops(amount)}`));
    drawing.append(bar);
  }
  const apart = Math.ceil(LABEL_PX / step);
  for (let day = last - Math.floor(apart / 2); day >= first; day -= apart) {
    const date = new Date(day * DAY_MS).toISOString().slice(0, 10);
    drawing.append(shape("text", { x: x(day), y: HEIGHT - 6, "text-anchor": "middle" }, date));
  }
  return drawing;
}
