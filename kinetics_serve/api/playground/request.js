// The form as the body of a request.

import { byId } from "./dom.js";
import * as budget from "./budget.js";

const number = (id) => Number(byId(id).value);

function kvBudget() {
  const chosen = byId("kv").value;
  return chosen === "tokens" ? number("kv-tokens") : chosen;
}

/** Throws where the strategy's options are no JSON. */
export function body() {
  const kinetics = {
    budget: budget.stated(),
    strategy: byId("strategy").value,
    kv_budget: kvBudget(),
    max_samples: number("max-samples"),
    stop_confidence: number("stop-confidence"),
  };
  const options = byId("strategy-options").value.trim();
  if (options) {
    try {
      kinetics.strategy_options = JSON.parse(options);
    } catch {
      throw new Error(`The strategy's options are no JSON: ${options}. State them as in {"deciding_votes": 2}.`);
    }
  }
  const asked = {
    model: byId("model").value,
    messages: [{ role: "user", content: byId("question").value }],
    max_tokens: number("max-tokens"),
    kinetics,
  };
  return byId("temperature").value ? { ...asked, temperature: number("temperature") } : asked;
}

/** The same as a stream that tells of every sample. */
export function streamed(asked) {
  return { ...asked, stream: true, kinetics: { ...asked.kinetics, include_samples: true } };
}
