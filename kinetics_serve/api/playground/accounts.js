// The tenants as the server knows them.

import * as api from "./api.js";

/** Every tenant, by name. */
export let all = [];

/** Dollars for an eFLOP; null where nobody knows. */
export let rate = null;

export async function load() {
  const answer = await api.get("v1/kinetics/admin/tenants");
  all = answer.data;
  rate = answer.dollars_per_eflop;
}

export function forget() {
  all = [];
  rate = null;
}

export const find = (name) => all.find((account) => account.name === name);
