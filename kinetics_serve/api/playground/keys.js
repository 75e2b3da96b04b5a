// A tenant's keys: those there are, a new one, and one that goes.

import * as api from "./api.js";
import { byId, element, say } from "./dom.js";

let revoking = () => {};

/** what: done with the key whose button is pressed. */
export function onRevoke(what) {
  revoking = what;
}

const time = (seconds) => `${new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ")}`;

export function draw(account) {
  const columns = ["id", "for", "created (UTC)", "revoked"];
  const head = [...columns.map((name) => element("th", { scope: "col" }, name)), element("td")];
  byId("keys").replaceChildren(
    element("caption", {}, account.keys.length ? "The ledger keeps their hashes only." : "There is no key yet."),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...account.keys.map(row)),
  );
}

function row(key) {
  const cells = [key.id, key.name, time(key.created_at), key.revoked_at === null ? "" : time(key.revoked_at)];
  return element("tr", {}, ...cells.map((text) => element("td", {}, `${text}`)), element("td", {}, ...buttons(key)));
}

function buttons(key) {
  if (key.revoked_at !== null) return [];
  const button = element("button", { type: "button", "aria-label": `Revoke key ${key.id}` }, "Revoke");
  button.addEventListener("click", () => revoking(key));
  return [button];
}

export async function create(tenant) {
  const made = await api.post("v1/kinetics/admin/keys", { tenant, name: byId("key-name").value });
  byId("key-name").value = "";
  byId("made").hidden = false;
  byId("made-key").value = made.key;
  byId("made-key").focus();
  byId("made-key").select();
}

export const revoke = (key) => api.remove(`v1/kinetics/admin/keys/${key.id}`);

/** Takes a new key off the page. */
export function forget() {
  byId("made").hidden = true;
  byId("made-key").value = "";
  byId("key-name").value = "";
}

async function copy() {
  byId("made-key").select();
  // Browsers have a clipboard for scripts only on https and on the machine itself.
  const copied = navigator.clipboard
    ? await navigator.clipboard.writeText(byId("made-key").value).then(() => true, () => false)
    : document.execCommand("copy");
  const refused = "The browser lets no page copy: the key is marked, so press Ctrl and C.";
  say(byId("tenant-status"), copied ? "Copied." : refused);
}

byId("copy").addEventListener("click", copy);
