// What a page asks of the server. The key lives in this tab's session storage and nowhere else.

import { events } from "./events.js";

let place = "kinetics-api-key";

/** For a page whose key is another than the playground's. */
export function keepKeyAt(name) {
  place = name;
}

export const storedKey = () => sessionStorage.getItem(place) ?? "";

export function storeKey(key) {
  if (key) sessionStorage.setItem(place, key);
  else sessionStorage.removeItem(place);
}

/** What the server said no with. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = error?.code;
  }
}

// Relative paths, so that the page works behind a proxy that adds a folder of its own.
async function send(path, options) {
  const headers = { ...options.headers };
  if (storedKey()) headers.authorization = `Bearer ${storedKey()}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, body.error);
}

const posted = (body, signal) => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "content-type": "application/json" },
  signal,
});

export const get = async (path) => (await send(path, {})).json();

export const post = async (path, body, signal) => (await send(path, posted(body, signal))).json();

export const remove = async (path) => (await send(path, { method: "DELETE" })).json();

/** The objects of a stream, as they come. */
export async function* stream(path, body, signal) {
  const answer = await send(path, posted(body, signal));
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Refused(answer.status, event.error);
    yield event;
  }
  throw new Error("the stream broke off before its answer");
}
