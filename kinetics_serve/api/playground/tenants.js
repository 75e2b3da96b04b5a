// The table of tenants: what each has left.

import * as accounts from "./accounts.js";
import * as quota from "./quota.js";
import { byId, element, setShare } from "./dom.js";
import { count, eflops } from "./numbers.js";

const COLUMNS = ["tenant", "window", "month", "running now", "other limits", "keys in use", ""];

let manage = () => {};

/** what: done with the account whose button is pressed. */
export function onManage(what) {
  manage = what;
}

export function draw() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const found = accounts.all.filter((account) => account.name.toLowerCase().includes(wanted));
  const head = COLUMNS.map((name) =>
    name ? element("th", { scope: "col", role: "columnheader" }, name) : element("td", { role: "cell" }),
  );
  const none = accounts.all.length ? "No tenant has such a name." : "There is no tenant yet: make one.";
  byId("tenants").replaceChildren(
    element("caption", {}, found.length ? count(found.length, "tenant") : none),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)),
    element("tbody", { role: "rowgroup" }, ...found.map(row)),
  );
}

// The roles are stated because a phone shows the rows as blocks, which to a browser are no table any more.
function row(account) {
  const { limits, name } = account;
  const button = element("button", { type: "button", "aria-label": `Manage ${name}` }, "Manage");
  button.addEventListener("click", () => manage(account));
  const used = account.keys.filter((key) => key.revoked_at === null).length;
  const reserved = account.reserved_eflops ? `, ${eflops(account.reserved_eflops)} reserved` : "";
  const hours = quota.hours(limits.window_s);
  const cells = [
    meter(`${name}: spent in the last ${hours}`, account.window_spent_eflops, limits.window_eflops),
    meter(`${name}: spent this month`, account.month_spent_eflops, limits.month_eflops),
    [`${count(account.running_requests, "request")}${reserved}`],
    [quota.rules(limits).join("; ")],
    [`${used}`],
    [button],
  ];
  cells[0].push(element("span", { className: "hint" }, `in ${hours}`));
  return element(
    "tr",
    { role: "row" },
    element("th", { scope: "row", role: "rowheader" }, name),
    ...cells.map((parts, index) => element("td", { role: "cell", "data-label": COLUMNS[index + 1] }, ...parts)),
  );
}

/** The words, and under them a bar where there is a limit. */
function meter(label, spent, limit) {
  const words = quota.words(spent, limit, accounts.rate);
  if (limit === null) return [element("div", {}, words)];
  const share = quota.share(spent, limit);
  const fill = element("div", { className: share >= 1 ? "fill full" : "fill" });
  setShare(fill, share);
  const stated = {
    className: "track",
    role: "meter",
    "aria-label": label,
    "aria-valuemin": 0,
    "aria-valuemax": 100,
    "aria-valuenow": Math.round(100 * Math.min(1, share)),
    "aria-valuetext": words,
  };
  return [element("div", {}, words), element("div", stated, fill)];
}
