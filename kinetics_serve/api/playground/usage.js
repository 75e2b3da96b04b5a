// What a key's tenant may spend and has spent.

import * as api from "./api.js";
import { bar, byId, element, say, table } from "./dom.js";
import { count, eflops, forPeople, percent } from "./numbers.js";

export async function show() {
  const days = ["since", "until"].filter((id) => byId(id).value).map((id) => `${id}=${byId(id).value}`);
  try {
    const usage = await api.get(`v1/kinetics/usage${days.length ? `?${days.join("&")}` : ""}`);
    byId("usage").replaceChildren(...parts(usage));
    say(byId("usage-status"), `Tenant ${usage.tenant}: ${count(usage.running_requests, "request")} running now.`);
  } catch (error) {
    byId("usage").replaceChildren();
    say(byId("usage-status"), error.message);
  }
}

function parts(usage) {
  const { limits } = usage;
  const hours = `last ${Number((limits.window_s / 3600).toPrecision(3))} h`;
  const quotas = element(
    "ul",
    { className: "bars" },
    quota(`spent in the ${hours}`, usage.window_spent_eflops, limits.window_eflops),
    quota("spent this month", usage.month_spent_eflops, limits.month_eflops),
    quota("reserved for what runs", usage.reserved_eflops, limits.window_eflops),
  );
  const rules = [
    limits.request_eflops === null ? "a request may cost anything" : `a request at most ${eflops(limits.request_eflops)}`,
    limits.concurrency === null ? "any number of requests at once" : `${count(limits.concurrency, "request")} at once`,
    limits.models === null ? "all models" : `models: ${limits.models.join(", ")}`,
  ];
  const columns = ["day (UTC)", "model", "strategy", "requests", "eFLOPs"];
  const rows = usage.data.map((row) => [row.day, row.model, row.strategy, row.requests, forPeople(row.eflops)]);
  const spending = element("table", {}, ...table(columns, rows, rows.length ? "Spending" : "Nothing was spent."));
  const scroll = { className: "scroll", role: "region", "aria-label": "Spending", tabIndex: 0 };
  return [quotas, element("p", {}, `Limits: ${rules.join("; ")}.`), element("div", scroll, spending)];
}

function quota(label, spent, limit) {
  const value = limit === null ? `${eflops(spent)}, no limit` : `${forPeople(spent)} of ${eflops(limit)} (${percent(spent / limit)})`;
  return bar(label, value, limit === null ? 0 : spent / limit);
}
