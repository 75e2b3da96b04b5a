// The form of a tenant's limits. What stays as it was is not sent, so that no number loses digits here.

import * as accounts from "./accounts.js";
import * as api from "./api.js";
import { byId, say } from "./dom.js";
import { dollars, eflops } from "./numbers.js";

const HOUR_S = 3600;
const DAY_S = 86400;

const amount = {
  shown: (number) => (number < 1e6 ? `${number}` : number.toExponential().replace("+", "")),
  stated: (text) => text, // the server reads it, with all of its digits
};

const FIELDS = {
  window_eflops: amount,
  window_s: { shown: (seconds) => `${seconds / HOUR_S}`, stated: (text) => Math.round(Number(text) * HOUR_S) },
  month_eflops: amount,
  request_eflops: amount,
  concurrency: { shown: (number) => `${number}`, stated: Number },
  models: {
    shown: (names) => names.join(", "),
    stated: (text) => text.split(",").map((name) => name.trim()).filter(Boolean),
  },
};

let before = {};

/** account: null for a new tenant. */
export function fill(account) {
  byId("name").value = account?.name ?? "";
  byId("name").readOnly = account !== null;
  for (const [field, { shown }] of Object.entries(FIELDS)) {
    const limit = account ? account.limits[field] : field === "window_s" ? DAY_S : null;
    byId(field).value = limit === null ? "" : shown(limit);
    before[field] = account ? byId(field).value : "";
  }
  tell();
}

/** Says what an amount is in short, and in money. */
export function tell() {
  for (const field of Object.keys(FIELDS).filter((field) => FIELDS[field] === amount)) {
    const number = Number(byId(field).value);
    const money = accounts.rate === null ? "" : `, ${dollars(number * accounts.rate)}`;
    const known = byId(field).value.trim() !== "" && number >= 0 && number < Infinity;
    say(byId(`${field}-words`), known ? `${eflops(number)}${money}` : "such as 4e15");
  }
}

/** The tenant as the server has saved it. */
export function save() {
  const body = { name: byId("name").value };
  for (const [field, { stated }] of Object.entries(FIELDS)) {
    const text = byId(field).value.trim();
    if (text !== before[field]) body[field] = text === "" ? null : stated(text);
  }
  return api.post("v1/kinetics/admin/tenants", body);
}
