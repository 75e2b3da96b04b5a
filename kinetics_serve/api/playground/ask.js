// One request from its first event to its bill.

import * as api from "./api.js";
import * as frontier from "./frontier.js";
import * as gauge from "./gauge.js";
import * as lanes from "./lanes.js";
import * as plan from "./plan.js";
import * as request from "./request.js";
import * as saved from "./saved.js";
import * as votes from "./votes.js";
import { byId, element, say } from "./dom.js";
import { count, eflops, percent } from "./numbers.js";

const ENDINGS = {
  consensus: "Consensus",
  budget: "The budget is spent",
  max_samples: "No more samples are allowed",
  deadline: "The time is up",
  single: "One sample, no vote",
};

let running = null;

export const stop = () => running?.abort();

export async function ask() {
  stop();
  const mine = (running = new AbortController());
  clear();
  busy(true);
  const began = performance.now();
  let asked = null;
  let last = null; // how far it was by its last event
  try {
    asked = request.streamed(request.body());
    const expected = plan.newest;
    say(byId("status"), "Asked.");
    let text = "";
    for await (const event of api.stream("v1/chat/completions", asked, mine.signal)) {
      for (const choice of event.choices) text += choice.delta?.content ?? "";
      const told = event.kinetics;
      if (!told) continue;
      if ("stop_reason" in told) finished(told, text, asked.max_tokens, (performance.now() - began) / 1000, expected);
      else progressed((last = told), asked.max_tokens);
    }
  } catch (error) {
    if (last && running === mine) ended(last, asked.max_tokens);
    if (mine.signal.aborted) say(byId("status"), "Stopped: what still ran was cancelled.");
    else failed(error);
  } finally {
    if (running === mine) busy(false);
  }
}

function clear() {
  for (const part of [gauge, lanes, votes, saved]) part.clear();
  byId("answer").hidden = byId("error").hidden = true;
  frontier.mark(null);
}

function busy(yes) {
  byId("stop").disabled = !yes;
  byId("form").setAttribute("aria-busy", yes);
}

function failed(error) {
  say(byId("status"), "");
  byId("error").hidden = false;
  say(byId("error"), error.message);
}

function progressed(state, longest) {
  gauge.progress(state);
  lanes.show(state.samples, longest);
  votes.show(state.votes, votes.withoutVote(state.samples));
  const leader = state.votes[0];
  const leading = leader ? `; ${leader.answer} leads with ${count(leader.count, "vote")}` : "";
  say(byId("status"), `${state.samples_running} running, ${state.samples_finished} finished${leading}`);
}

/** Without an answer: nothing runs any more, and nothing is reserved. */
function ended(state, longest) {
  gauge.progress({ ...state, reserved_eflops: 0 });
  const cancelled = { status: "cancelled", no_vote: "cancelled" };
  lanes.show(state.samples.map((sample) => (sample.status === "running" ? { ...sample, ...cancelled } : sample)), longest);
}

function finished(bill, text, longest, seconds, expected) {
  gauge.bill(bill);
  lanes.show(bill.samples, longest);
  votes.show(bill.votes, bill.no_votes);
  saved.show(bill);
  byId("answer").hidden = false;
  say(byId("answer-text"), text || "No sample said anything.");
  const verdict = verdictOf(bill, seconds);
  say(byId("verdict"), verdict);
  byId("notes").replaceChildren(...bill.notes.map((note) => element("li", {}, note)));
  byId("bill").textContent = JSON.stringify(bill, null, 2);
  frontier.mark({ spent: bill.spent_eflops, accuracy: expected?.expected_accuracy?.mean ?? null });
  say(byId("status"), `Answered${bill.answer === null ? "" : `: ${bill.answer.replace(/\.$/, "")}`}. ${verdict}`);
}

function verdictOf(bill, seconds) {
  const sure = bill.confidence === null ? "" : `, ${percent(bill.confidence)} sure`;
  const ended = bill.samples_finished + (bill.samples_failed ?? 0);
  return (
    `${ENDINGS[bill.stop_reason] ?? bill.stop_reason} after ${seconds.toFixed(1)} s${sure}: ` +
    `${ended} of ${count(bill.samples_started, "sample")} ended, ${eflops(bill.spent_eflops)} spent ` +
    `(${percent(bill.spent_eflops / bill.budget_eflops)} of the budget), ${bill.strategy} on ${bill.model}.`
  );
}
