// What the calibration measured: accuracy against eFLOPs, the frontier, and where the request stands on it.

import * as api from "./api.js";
import * as chart from "./chart.js";
import { byId, say, table } from "./dom.js";
import { eflops, forPeople, percent } from "./numbers.js";

let known = null;
let request = null;

/** Whether the server has a calibration. */
export async function load() {
  try {
    known = await api.get("v1/kinetics/frontier");
  } catch (error) {
    known = null;
    say(byId("frontier-text"), error.message);
  }
  const best = known?.data.filter((point) => point.on_frontier) ?? [];
  byId("frontier-details").hidden = !best.length;
  const columns = ["eFLOPs", "accuracy", "strategy", "model", "KV budget", "samples", "tokens"];
  const rows = best.map((point) => [
    forPeople(point.spent_eflops.mean),
    percent(point.accuracy.mean),
    point.strategy,
    point.model,
    point.kv_budget,
    Number(point.samples.toPrecision(3)),
    point.max_tokens,
  ]);
  byId("frontier-table").replaceChildren(...table(columns, rows, "No cheaper way of spending is as accurate as these."));
  draw();
  return known !== null;
}

/** of: what the request spent, and the accuracy that its plan expects, null without; null for no request. */
export function mark(of) {
  request = of;
  draw();
}

export function draw() {
  if (!known?.data.length) {
    byId("frontier-chart").replaceChildren();
    return;
  }
  const where = request ? ` Your request spent ${eflops(request.spent)}${expectation()}.` : "";
  const text =
    `Every dot is a way of spending that was measured on ${known.questions} questions of ${known.task}, priced for ` +
    `${known.hardware}; the line joins those that no cheaper one matches.${where}`;
  say(byId("frontier-text"), text);
  byId("frontier-chart").replaceChildren(chart.scatter(known.data, request, byId("frontier-chart").clientWidth));
}

const expectation = () =>
  request.accuracy === null ? "" : `, and its plan expects an accuracy of ${percent(request.accuracy)}`;
