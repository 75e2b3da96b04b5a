// A quota in words, and what else limits a tenant.

import { count, dollars, eflops, forPeople, percent } from "./numbers.js";

/** Of 0 to 1. Nothing is left of a limit of 0, and no share is used of none. */
export function share(spent, limit) {
  if (limit === null) return 0;
  return limit === 0 ? 1 : spent / limit;
}

/** rate: dollars for an eFLOP, null where nobody knows. */
export function words(spent, limit, rate = null) {
  const money = (amount) => (rate === null ? "" : dollars(amount * rate));
  if (limit === null) return `${[eflops(spent), money(spent)].filter(Boolean).join(", ")}, no limit`;
  const paid = rate === null ? "" : `, ${money(spent)} of ${money(limit)}`;
  return `${forPeople(spent)} of ${eflops(limit)} (${percent(share(spent, limit))})${paid}`;
}

export const hours = (seconds) => `${Number((seconds / 3600).toPrecision(3))} h`;

export const rules = (limits) => [
  limits.request_eflops === null ? "a request may cost anything" : `a request at most ${eflops(limits.request_eflops)}`,
  limits.concurrency === null ? "any number of requests at once" : `${count(limits.concurrency, "request")} at once`,
  limits.models === null ? "all models" : `models: ${limits.models.join(", ") || "none"}`,
];
