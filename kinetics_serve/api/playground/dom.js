// Elements, always with text and never with markup: what models say is shown here.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** A new element. properties: of the element itself, or attributes where they have a dash or are a role. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A new part of a drawing. */
export function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

/** Sets a text only where it differs, so that screen readers are told of changes alone. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Of 0 to 1, as the width of a bar. Set by script, as the page allows no style in its markup. */
export function setShare(node, share, property = "width") {
  node.style.setProperty(property, `${100 * Math.min(1, Math.max(0, share || 0))}%`);
}

/** A bar with its words: what, how much, and a share of the longest. */
export function bar(label, value, share, kind = "") {
  const fill = element("div", { className: `fill ${kind}` });
  setShare(fill, share);
  const words = element("div", { className: "bar-words" }, element("span", {}, label), element("b", {}, value));
  return element("li", {}, words, element("div", { className: "track" }, fill));
}

export function table(columns, rows, caption) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, `${cell}`))));
  return [
    element("caption", {}, caption),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  ];
}
