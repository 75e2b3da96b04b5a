// The budget's slider. It stands in whole samples, or on a logarithmic scale between what the plan says is the least
// and what a few dozen samples cost.

import { byId, element, say } from "./dom.js";
import { count, dollars, eflops, forPeople, percent } from "./numbers.js";

const STEPS = 200;
const MOST_SAMPLES = 32;
const LEAST_TOKENS = 16; // of a sample: the server starts none with less

const linear = (low, high) => ({
  slider: { min: low, max: high, step: 1 },
  amount: (position) => position,
  position: (amount) => amount,
});

const logarithmic = (low, high) => ({
  slider: { min: 0, max: STEPS, step: 1 },
  amount: (position) => low * (high / low) ** (position / STEPS),
  position: (amount) => Math.round((STEPS * Math.log(amount / low)) / Math.log(high / low)),
});

const ofEflops = {
  // A little more than the least, as that is an integer and this is not.
  scale: (prices) => logarithmic(1.001 * prices.minimum_eflops, MOST_SAMPLES * prices.sample_eflops),
  first: (prices) => 8 * prices.sample_eflops,
  stated: (amount) => ({ eflops: amount }),
};

const UNITS = {
  samples: {
    name: "about N samples",
    scale: () => linear(1, MOST_SAMPLES),
    first: () => 8,
    stated: (amount) => ({ samples: amount }),
    words: (amount) => `about ${count(amount, "sample")}`,
  },
  eflops: { ...ofEflops, name: "eFLOPs", words: eflops },
  dollars: { ...ofEflops, name: "dollars", words: (amount) => `${dollars(amount * rate())}, ${eflops(amount)}` },
  tokens: {
    name: "generated tokens",
    scale: (prices) => logarithmic(LEAST_TOKENS, MOST_SAMPLES * prices.max_tokens),
    first: (prices) => 8 * prices.max_tokens,
    stated: (amount) => ({ tokens: Math.ceil(amount) }),
    words: (amount) => `${forPeople(Math.ceil(amount))} tokens`,
  },
  accuracy: {
    name: "accuracy to reach",
    scale: () => linear(1, 99),
    first: () => 50,
    stated: (amount) => ({ accuracy: amount / 100 }),
    words: (amount) => percent(amount / 100),
  },
};

let prices = null; // of one sample, as the plan says; null until it is known
let scale = linear(1, MOST_SAMPLES);

let calibrated = false; // whether a budget can be stated by the accuracy that it is to reach

const OFFERED = {
  accuracy: () => calibrated,
  dollars: () => prices?.sample_dollars !== undefined, // where the server knows what an hour of its hardware costs
};

const rate = () => prices.sample_dollars / prices.sample_eflops;
const unit = () => UNITS[byId("unit").value];
const amount = () => scale.amount(Number(byId("budget").value));

/** known: whether the server has a calibration. */
export function offer(known) {
  calibrated = known;
  fill();
  reset();
}

/** Fills in the units that can be chosen now. */
function fill() {
  const names = Object.keys(UNITS).filter((name) => OFFERED[name]?.() ?? true);
  if (names.join() === [...byId("unit").options].map((option) => option.value).join()) return;
  const chosen = byId("unit").value;
  byId("unit").replaceChildren(...names.map((name) => element("option", { value: name }, UNITS[name].name)));
  if (names.includes(chosen)) byId("unit").value = chosen;
}

/** The prices of a prompt and its samples. The slider keeps its amount where the new scale has it. */
export function price(answer) {
  const known = prices;
  prices = answer;
  // In samples or accuracy nothing moves, and a slider that moved by itself would fight the hand that holds it.
  const moved = known?.sample_eflops !== prices.sample_eflops || known?.minimum_eflops !== prices.minimum_eflops;
  fill();
  if (moved && needsPrices()) rescale(known ? amount() : unit().first(prices));
}

const needsPrices = () => ["eflops", "dollars", "tokens"].includes(byId("unit").value);

/** To the first amount of the chosen unit. */
export function reset() {
  if (needsPrices() && !prices) byId("unit").value = "samples";
  rescale(unit().first(prices));
}

function rescale(wanted) {
  scale = unit().scale(prices);
  Object.assign(byId("budget"), scale.slider);
  byId("budget").value = scale.position(wanted);
  tell();
}

/** Says in words where the slider stands. */
export function tell() {
  const words = unit().words(amount());
  byId("budget").setAttribute("aria-valuetext", words);
  say(byId("amount"), words);
}

/** As a request states it. */
export const stated = () => unit().stated(amount());
