// A model card, which is Markdown, as elements: headings, paragraphs, tables, lists, code and emphasis. Anything else
// stays the text it is; no part of it is ever read as HTML.

import { element } from "./dom.js";

const BLOCKS = { heading: /^(#{1,6}) +(.*)/, fence: /^```/, table: /^\|/, item: /^ *[-*] +(.*)/ };
const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\((https?:\/\/[^)\s]+)\)/g;
const OUTER_HEADINGS = 2; // the card stands below a second-level heading of the page

/** Elements for a card. */
export function cardElements(markdown) {
  const lines = markdown.split(/\r?\n/);
  const made = [];
  for (let at = 0; at < lines.length; ) {
    const start = at;
    const run = (goesOn) => {
      while (at < lines.length && goesOn(lines[at])) at++;
      return lines.slice(start, at);
    };
    if (!lines[at].trim()) at++;
    else if (BLOCKS.fence.test(lines[at])) {
      at++;
      const code = run((line) => !BLOCKS.fence.test(line)).slice(1);
      at++;
      made.push(element("pre", { tabIndex: 0 }, element("code", {}, code.join("\n"))));
    } else if (BLOCKS.heading.test(lines[at])) {
      const [, marks, text] = lines[at++].match(BLOCKS.heading);
      made.push(element(`h${Math.min(marks.length + OUTER_HEADINGS, 6)}`, {}, ...inline(text)));
    } else if (BLOCKS.table.test(lines[at])) made.push(table(run((line) => BLOCKS.table.test(line))));
    else if (BLOCKS.item.test(lines[at])) made.push(list(run((line) => BLOCKS.item.test(line) || /^ +\S/.test(line))));
    else made.push(element("p", {}, ...inline(run((line) => line.trim() && !startsBlock(line)).join(" "))));
  }
  return made;
}

const startsBlock = (line) => Object.values(BLOCKS).some((block) => block.test(line));

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, label, href] = match;
    parts.push(text.slice(end, match.index));
    if (code) parts.push(element("code", {}, code));
    else if (strong) parts.push(element("strong", {}, strong));
    else parts.push(element("a", { href, rel: "noreferrer" }, label));
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)];
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    const item = line.match(BLOCKS.item);
    if (item) items.push(item[1]);
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return element("ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
}

function table(lines) {
  const [head, rule, ...rows] = lines.map((line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map(plain));
  if (!rule) return element("p", {}, ...lines);
  const className = (column) => (rule[column]?.endsWith(":") ? "number" : "");
  const filled = (kind, cells) => cells.map((text, k) => element(kind, { className: className(k) }, ...inline(text)));
  const made = element("table", {}, element("tbody", {}, ...rows.map((row) => element("tr", {}, ...filled("td", row)))));
  if (head.some(Boolean)) {
    const heads = filled("th", head);
    heads.forEach((one) => (one.scope = "col"));
    made.prepend(element("thead", {}, element("tr", {}, ...heads)));
  }
  const region = element("div", { className: "scroll", tabIndex: 0, role: "group" }, made);
  region.setAttribute("aria-label", "Table of the model card");
  return region;
}

const plain = (cell) => cell.trim().replaceAll("\\|", "|");
