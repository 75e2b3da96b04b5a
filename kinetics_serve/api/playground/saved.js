// What the same votes would have cost more as plain, dense self-consistency. All numbers are the bill's.

import { bar, byId, say } from "./dom.js";
import { eflops, percent } from "./numbers.js";

const REASONS = {
  early_stop_eflops: "stopping when the vote was decided",
  sparse_attention_eflops: "sparse attention",
  shared_prefix_eflops: "reading the prompt together",
};

export function clear() {
  byId("saved").hidden = true;
}

export function show(bill) {
  byId("saved").hidden = false;
  const reasons = Object.entries(REASONS).map(([field, reason]) => [reason, bill.saved[field]]);
  const saved = reasons.reduce((sum, [, amount]) => sum + amount, 0);
  const plain = bill.spent_eflops + saved;
  say(
    byId("saved-text"),
    saved
      ? `Plain dense self-consistency would have cost ${eflops(plain)}: ${percent(saved / plain)} was saved.`
      : "Nothing: this is what plain dense self-consistency costs.",
  );
  const bars = reasons.map(([reason, amount]) => bar(reason, eflops(amount), amount / plain, "saving"));
  byId("saved-bars").replaceChildren(bar("spent", eflops(bill.spent_eflops), bill.spent_eflops / plain), ...bars);
}
