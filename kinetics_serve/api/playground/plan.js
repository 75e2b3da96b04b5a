// What the budget would buy, asked of the server whenever something in the form has changed.

import * as api from "./api.js";
import * as budget from "./budget.js";
import * as request from "./request.js";
import { byId, say } from "./dom.js";
import { count, eflops, percent } from "./numbers.js";

const AFTER_MS = 200; // of peace, as a slider that is dragged says something new all the time

let timer = 0;
let asking = null;

/** The newest plan, null where there is none. */
export let newest = null;

export function soon() {
  clearTimeout(timer);
  timer = setTimeout(ask, AFTER_MS);
}

async function ask() {
  asking?.abort();
  if (!byId("question").value.trim() || !byId("model").value) return;
  const mine = (asking = new AbortController());
  try {
    const answer = await api.post("v1/kinetics/plan", request.body(), mine.signal);
    newest = answer;
    budget.price(answer);
    say(byId("plan"), words(answer));
  } catch (error) {
    if (mine.signal.aborted) return;
    newest = null;
    say(byId("plan"), error.message);
  }
}

function words(plan) {
  const kv = plan.kv_budget === "dense" ? "dense attention" : `a KV budget of ${plan.kv_budget} tokens`;
  const samples = `${count(plan.full_length_samples ?? plan.max_samples, "sample")} of up to ${plan.max_tokens} tokens`;
  const money = plan.rounded.budget_dollars ? ` (${plan.rounded.budget_dollars})` : "";
  const sentences = [`${eflops(plan.budget_eflops)}${money} buy ${plan.strategy} with ${samples}, ${kv}.`];
  if (plan.expected_accuracy) {
    const { mean, low, high } = plan.expected_accuracy;
    sentences.push(`Expected accuracy: ${percent(mean)} (${percent(low)} to ${percent(high)}).`);
  }
  return [...sentences, ...(plan.notes ?? []).map((note) => `${note}.`)].join(" ");
}
