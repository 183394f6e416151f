// What the modules of the page build with. Text only ever becomes text nodes, whoever it comes from.

const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

/** An element with its properties and children. */
export function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

/** An SVG element with its attributes and children. */
export function drawn(kind, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const count = (n) => n.toLocaleString("en-US");
export const several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
export const percent = (share) => `${+(100 * share).toPrecision(4)}\u202f%`;
export const signed = (celsius) => (celsius === null ? "unknown" : `${celsius < 0 ? "−" : "+"}${Math.abs(celsius).toFixed(2)}`);

/** Hand a file to whoever sits before the page. */
export function save(name, content) {
  const href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: "text/csv" }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}
