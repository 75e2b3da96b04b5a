// What is spent of the budget, and what is still reserved for samples that run.

import { byId, say, setShare } from "./dom.js";
import { eflops, forPeople, percent } from "./numbers.js";

const gauge = () => byId("gauge");
const part = (name) => gauge().querySelector(`.${name}`);

export function clear() {
  show({ budget: 1, spent: 0, compute: 0, memory: 0, reserved: 0 });
  part("mark").hidden = true;
  say(byId("spent-text"), "");
}

/** While samples run. What is spent counts the tokens that running samples have so far. */
export function progress(state) {
  const now = state.so_far;
  const compute = now.compute_flops;
  const reserved = Math.max(0, state.spent_eflops + state.reserved_eflops - now.eflops);
  show({ budget: state.budget_eflops, spent: now.eflops, compute, memory: now.eflops - compute, reserved });
}

/** When all is over. */
export function bill(paid) {
  const compute = paid.compute_flops;
  const spent = paid.spent_eflops;
  show({ budget: paid.budget_eflops, spent, compute, memory: spent - compute, reserved: 0 });
  const { spent_dollars, budget_dollars } = paid.rounded;
  if (spent_dollars) byId("spent-text").append(`, ${spent_dollars} of ${budget_dollars}`);
  if (paid.stop_reason === "consensus") {
    part("mark").hidden = false;
    setShare(part("mark"), spent / paid.budget_eflops, "inset-inline-start");
  }
}

function show({ budget, spent, compute, memory, reserved }) {
  byId("spent").hidden = false;
  setShare(part("compute"), compute / budget);
  setShare(part("memory"), memory / budget);
  setShare(part("reserved"), reserved / budget);
  say(byId("compute"), forPeople(compute));
  say(byId("memory"), forPeople(Math.max(0, memory)));
  say(byId("reserved"), forPeople(reserved));
  const text = `${percent(spent / budget)}: ${forPeople(spent)} of ${eflops(budget)}`;
  gauge().setAttribute("aria-valuenow", Math.round((100 * spent) / budget));
  gauge().setAttribute("aria-valuetext", text);
  say(byId("spent-text"), text);
}
