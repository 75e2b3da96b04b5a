// Brings the page to life: what there is to choose, and what happens when something is chosen.

import * as api from "./api.js";
import * as budget from "./budget.js";
import * as frontier from "./frontier.js";
import * as plan from "./plan.js";
import * as usage from "./usage.js";
import { ask, stop } from "./ask.js";
import { byId, element, say } from "./dom.js";

const PAGES = { "#ask": "ask-page", "#usage": "usage-page" };
const KEY_FIELDS = ["key", "usage-key"];

async function loadModels() {
  try {
    const { data } = await api.get("v1/models");
    choices("model", data.map((card) => card.id));
    byId("error").hidden = true;
    const calibrated = await frontier.load();
    const temperature = byId("temperature");
    if (calibrated && temperature.value === temperature.defaultValue) temperature.value = ""; // as it was recorded
    budget.offer(calibrated);
    plan.soon();
  } catch (error) {
    choices("model", []);
    byId("error").hidden = false;
    say(byId("error"), error.message);
  }
}

/** The strategies there are, other packages' too, stand in the API's own description. */
async function loadStrategies() {
  const document = await api.get("openapi.json").catch(() => null);
  const options = document?.components.schemas.KineticsOptions.properties;
  choices("strategy", options?.strategy.enum ?? ["auto"]);
  say(byId("strategy-help"), options?.strategy_options.description ?? "");
}

/** Keeps what was chosen where it is still there. */
function choices(id, names) {
  const select = byId(id);
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

function showPage() {
  const hash = location.hash in PAGES ? location.hash : "#ask";
  for (const [name, id] of Object.entries(PAGES)) {
    byId(id).hidden = name !== hash;
    const link = document.querySelector(`nav a[href="${name}"]`);
    if (name === hash) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (hash === "#usage") usage.show();
  else frontier.draw(); // which has no width while it is hidden
}

function changedKey(event) {
  api.storeKey(event.target.value.trim());
  for (const id of KEY_FIELDS) byId(id).value = api.storedKey();
  loadModels();
}

function openAround(event) {
  const folded = event.target.closest("details");
  if (folded) folded.open = true;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
byId("form").addEventListener("input", (event) => {
  if (event.target.id === "unit") budget.reset();
  if (event.target.id === "key") return;
  byId("kv-tokens").disabled = byId("kv-tokens-field").hidden = byId("kv").value !== "tokens";
  budget.tell();
  plan.soon();
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
byId("form").addEventListener("invalid", openAround, true); // the browser can't point at what is folded away
byId("stop").addEventListener("click", stop);
byId("usage-form").addEventListener("submit", (event) => {
  event.preventDefault();
  usage.show();
});
for (const id of KEY_FIELDS) {
  byId(id).value = api.storedKey();
  byId(id).addEventListener("change", changedKey);
}
addEventListener("hashchange", showPage);
new ResizeObserver(() => frontier.draw()).observe(byId("frontier"));

budget.offer(false);
loadStrategies();
loadModels();
showPage();
