// Brings the administrator's page to life: who is signed in, what is shown, and what happens when something is pressed.

import * as accounts from "./accounts.js";
import * as api from "./api.js";
import * as keys from "./keys.js";
import * as limits from "./limits.js";
import * as spending from "./spending.js";
import * as tenants from "./tenants.js";
import { byId, say } from "./dom.js";

let shown = null; // the name of the tenant that is open, null while none is or a new one is made

function complain(id, error) {
  byId(id).hidden = !error;
  say(byId(id), error?.message ?? "");
}

/** Does something that the server may refuse, and says there why. Resolves to whether it was done. */
async function attempt(id, work) {
  complain(id, null);
  try {
    await work();
    return true;
  } catch (error) {
    if (error.status === 401) signOut();
    complain(error.status === 401 ? "error" : id, error);
    return false;
  }
}

async function refresh() {
  await accounts.load();
  tenants.draw();
  spending.offer();
  const account = accounts.find(shown);
  if (account) keys.draw(account);
  await spending.show();
}

async function signIn() {
  const inside = await attempt("error", refresh);
  byId("sign-in").hidden = inside;
  byId("signed-in").hidden = !inside;
  if (!inside) return;
  say(byId("status"), "Signed in.");
  spending.draw(); // which had no width while it was hidden
  byId("filter").focus();
}

function signOut() {
  api.storeKey("");
  close();
  accounts.forget();
  byId("sign-in").hidden = false;
  byId("signed-in").hidden = true;
  say(byId("status"), "");
  byId("admin-key").focus();
}

function close() {
  shown = null;
  keys.forget();
  byId("tenant").hidden = true;
}

/** account: null for a new tenant. */
function open(account) {
  close();
  shown = account?.name ?? null;
  byId("tenant").hidden = false;
  byId("keys-part").hidden = !account;
  say(byId("tenant-title"), account?.name ?? "New tenant");
  say(byId("tenant-status"), "");
  complain("tenant-error", null);
  limits.fill(account);
  if (account) keys.draw(account);
  (account ? byId("tenant-title") : byId("name")).focus();
}

async function save() {
  const saved = await attempt("tenant-error", async () => {
    const { name } = await limits.save();
    shown = name;
    await refresh();
  });
  if (!saved) return;
  open(accounts.find(shown));
  say(byId("tenant-status"), "Saved.");
}

async function create() {
  await attempt("tenant-error", async () => {
    await keys.create(shown);
    say(byId("tenant-status"), "The key is made."); // at once: it can be copied while the rest is read anew
    await refresh();
  });
}

async function revoke(key) {
  const which = `the key ${key.id}${key.name && ` (${key.name})`} of ${key.tenant}`;
  if (!(await confirmed(`Revoke ${which}? Whoever uses it is refused from the next request on.`))) return;
  await attempt("tenant-error", async () => {
    await keys.revoke(key);
    say(byId("tenant-status"), `The key ${key.id} is revoked.`);
    await refresh();
  });
  byId("tenant-title").focus(); // the button that was pressed is gone
}

/** Asks. Escape is a no. */
function confirmed(question) {
  const dialog = byId("confirm");
  say(byId("confirm-text"), question);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function submitted(id, work) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    work();
  });
}

submitted("sign-in", () => {
  api.storeKey(byId("admin-key").value.trim());
  byId("admin-key").value = "";
  signIn();
});
submitted("limits", save);
submitted("new-key", create);
submitted("spending-form", () => attempt("error", spending.show));
byId("limits").addEventListener("input", limits.tell);
byId("filter").addEventListener("input", tenants.draw);
byId("new-tenant").addEventListener("click", () => open(null));
byId("refresh").addEventListener("click", async () => {
  if (await attempt("error", refresh)) say(byId("status"), `Refreshed at ${new Date().toLocaleTimeString()}.`);
});
byId("sign-out").addEventListener("click", () => {
  signOut();
  say(byId("status"), "Signed out.");
});
byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
tenants.onManage(open);
keys.onRevoke(revoke);
new ResizeObserver(spending.draw).observe(byId("spending"));

api.keepKeyAt("kinetics-admin-key");
if (api.storedKey()) signIn();
