// A lane for each sample: it grows with the sample's tokens, and ends in a vote or in the reason why there is none.

import { byId, element, say, setShare } from "./dom.js";
import { count } from "./numbers.js";

export const NO_VOTE = {
  cut_off: "was cut off before it ended",
  stopped: "was given up as hopeless",
  cancelled: "was cancelled when the request ended",
  failed: "failed on the engine",
  empty: "says nothing",
  unfinished_thinking: "never stopped thinking",
  broken_tool_call: "calls a function in a way that nobody can read",
  no_answer: "has no answer that could be found",
  program_failed: "has a program that fails",
  program_timed_out: "has a program that takes too long",
};

const lanes = new Map();

export function clear() {
  lanes.clear();
  byId("lanes").replaceChildren();
  byId("samples").hidden = true;
}

/** samples: of a stream's progress, or of a bill, which has all of their text. */
export function show(samples, longest) {
  byId("samples").hidden = false;
  for (const sample of samples) {
    const lane = lanes.get(sample.index) ?? add(sample, longest);
    update(lane, sample);
  }
}

function add(sample, longest) {
  const lane = {
    longest: sample.max_tokens ?? longest,
    title: element("span", { className: "lane-title" }, `Sample ${sample.index + 1}`),
    state: element("span", { className: "lane-state" }),
    fill: element("div", { className: "fill" }),
    tail: element("p", { className: "tail" }),
  };
  const head = element("div", { className: "bar-words" }, lane.title, lane.state);
  lane.item = element("li", { className: "lane" }, head, element("div", { className: "track" }, lane.fill), lane.tail);
  lanes.set(sample.index, lane);
  byId("lanes").append(lane.item);
  return lane;
}

function update(lane, sample) {
  lane.item.dataset.status = sample.answer === null && sample.status !== "running" ? "no-vote" : sample.status;
  setShare(lane.fill, sample.tokens / lane.longest);
  say(lane.state, `${count(sample.tokens, "token")}, ${outcome(sample)}`);
  if (sample.text === undefined) {
    say(lane.tail, sample.tail);
  } else if (sample.text && !lane.whole) {
    lane.whole = element("details", {}, element("summary", {}, "All it says"), element("pre", {}, sample.text));
    lane.tail.replaceWith(lane.whole);
  }
}

function outcome(sample) {
  if (sample.answer !== null) return `votes ${sample.answer}`;
  if (sample.status === "running") return "running";
  if (sample.error) return `no vote: ${sample.error.message}`;
  return `no vote: it ${NO_VOTE[sample.no_vote] ?? sample.no_vote ?? sample.status}`;
}
