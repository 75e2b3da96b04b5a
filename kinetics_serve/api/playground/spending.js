// What was spent, by day, model and strategy.

import * as accounts from "./accounts.js";
import * as api from "./api.js";
import { bars } from "./days.js";
import { byId, element, say, table } from "./dom.js";
import { count, dollars, eflops, forPeople } from "./numbers.js";

const DAY_MS = 86400e3;
const EVERYBODY = "all";

let rows = [];

const day = (ago) => new Date(Date.now() - ago * DAY_MS).toISOString().slice(0, 10);

byId("since").value = day(29);

/** Fills in the tenants that can be chosen. */
export function offer() {
  const chosen = byId("of-tenant").value;
  const names = accounts.all.map(({ name }) => element("option", { value: `=${name}` }, name));
  byId("of-tenant").replaceChildren(element("option", { value: "" }, EVERYBODY), ...names);
  byId("of-tenant").value = [...byId("of-tenant").options].some(({ value }) => value === chosen) ? chosen : "";
}

export async function show() {
  const asked = new URLSearchParams();
  const tenant = byId("of-tenant").value;
  if (tenant) asked.set("tenant", tenant.slice(1)); // after the "=", as a tenant may have any name
  for (const id of ["since", "until"]) if (byId(id).value) asked.set(id, byId(id).value);
  rows = (await api.get(`v1/kinetics/admin/usage?${asked}`)).data;
  const priced = rows.some((row) => row.dollars !== null);
  const columns = ["day (UTC)", "tenant", "model", "strategy", "requests", "eFLOPs", "dollars"];
  const newest = [...rows].sort((one, other) => other.day.localeCompare(one.day));
  const cells = newest.map((row) => [
    row.day,
    row.tenant,
    row.model,
    row.strategy,
    row.requests,
    forPeople(row.eflops),
    row.dollars === null ? "not known" : dollars(row.dollars),
  ]);
  const shown = priced ? columns.length : columns.length - 1;
  const cut = (line) => line.slice(0, shown);
  const caption = rows.length ? "The newest first" : "Nothing was spent.";
  byId("spending-table").replaceChildren(...table(cut(columns), cells.map(cut), caption));
  say(byId("spending-text"), rows.length ? words(priced) : "Nothing was spent in this time.");
  draw();
}

const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);

function words(priced) {
  const paid = sum(rows.map((row) => row.dollars ?? 0));
  const whole = rows.every((row) => row.dollars !== null) ? "" : " and what models cost that aren't served now";
  const requests = count(sum(rows.map((row) => row.requests)), "request");
  return `${eflops(sum(rows.map((row) => row.eflops)))}${priced ? `, ${dollars(paid)}${whole}` : ""}, for ${requests}.`;
}

export function draw() {
  const width = byId("spending-chart").clientWidth;
  const drawn = rows.length && width ? [bars(byDay(), byId("since").value, byId("until").value || day(0), width)] : [];
  byId("spending-chart").replaceChildren(...drawn);
}

function byDay() {
  const sums = new Map();
  for (const row of rows) sums.set(row.day, (sums.get(row.day) ?? 0) + row.eflops);
  return sums;
}
