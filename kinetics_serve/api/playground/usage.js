// What a key's tenant may spend and has spent.

import * as api from "./api.js";
import { bar, byId, element, say, table } from "./dom.js";
import { count, forPeople } from "./numbers.js";
import * as quota from "./quota.js";

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
  const hours = `last ${quota.hours(limits.window_s)}`;
  const quotas = element(
    "ul",
    { className: "bars" },
    standing(`spent in the ${hours}`, usage.window_spent_eflops, limits.window_eflops),
    standing("spent this month", usage.month_spent_eflops, limits.month_eflops),
    standing("reserved for what runs", usage.reserved_eflops, limits.window_eflops),
  );
  const columns = ["day (UTC)", "model", "strategy", "requests", "eFLOPs"];
  const rows = usage.data.map((row) => [row.day, row.model, row.strategy, row.requests, forPeople(row.eflops)]);
  const spending = element("table", {}, ...table(columns, rows, rows.length ? "Spending" : "Nothing was spent."));
  const scroll = { className: "scroll", role: "region", "aria-label": "Spending", tabIndex: 0 };
  return [quotas, element("p", {}, `Limits: ${quota.rules(limits).join("; ")}.`), element("div", scroll, spending)];
}

const standing = (label, spent, limit) => bar(label, quota.words(spent, limit), quota.share(spent, limit));
