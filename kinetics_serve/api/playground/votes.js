// The vote: a bar for each answer, and why some samples have none.

import { bar, byId, element } from "./dom.js";
import { NO_VOTE } from "./lanes.js";
import { count } from "./numbers.js";

export function clear() {
  byId("votes").hidden = true;
  show([], {});
}

/** votes: the leader first. noVotes: how many samples have none, by reason. */
export function show(votes, noVotes) {
  if (votes.length || Object.keys(noVotes).length) byId("votes").hidden = false;
  const most = Math.max(1, ...votes.map((vote) => vote.count));
  const bars = votes.map((vote, rank) =>
    bar(vote.answer, count(vote.count, "vote"), vote.count / most, rank ? "" : "leader"),
  );
  byId("vote-bars").replaceChildren(...bars);
  const reasons = Object.entries(noVotes).map(([reason, samples]) => {
    const why = `${samples === 1 ? "it" : "each"} ${NO_VOTE[reason] ?? reason}`;
    return element("li", {}, `${count(samples, "sample")} without a vote: ${why}`);
  });
  byId("no-votes").replaceChildren(...reasons);
}

/** Of samples, how many have no vote for which reason. */
export function withoutVote(samples) {
  const found = {};
  for (const sample of samples) {
    if (sample.no_vote) found[sample.no_vote] = (found[sample.no_vote] ?? 0) + 1;
  }
  return found;
}
