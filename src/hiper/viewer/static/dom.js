// Building the page. Texts become text nodes and nothing else, so nothing that a run holds can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "vars") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

export function replace(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

// Scrolls a box, and nothing around it, until an element is in sight.
export function keepInSight(box, element, margin = 0) {
  if (!box || !element) return;
  const [outer, inner] = [box.getBoundingClientRect(), element.getBoundingClientRect()];
  if (inner.left < outer.left + margin) box.scrollLeft += inner.left - outer.left - margin;
  else if (inner.right > outer.right) box.scrollLeft += inner.right - outer.right + 12;
  if (inner.top < outer.top) box.scrollTop += inner.top - outer.top;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom;
}

export function say(text) {
  document.getElementById("live").textContent = text;
}

// Numbers and times for people.

export function percent(share) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)}%`;
}

export function number(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(1);
  return size >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(Number(x.toFixed(digits)).toPrecision(4)));
}

export function signed(x) {
  if (x === null || x === undefined) return "";
  const text = Math.abs(x) < 0.005 ? "0.00" : Math.abs(x).toFixed(2);
  return x < 0 && text !== "0.00" ? `−${text}` : text;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function ago(time) {
  const seconds = Date.now() / 1000 - time;
  return seconds < 5 ? "now" : `${duration(seconds)} ago`;
}

export const ENDS = { won: "won", lost: "lost", turn_limit: "out of turns" };

export function badge(end, won) {
  const kind = won ? "won" : end === "turn_limit" ? "cut" : "lost";
  return h("span", { class: `badge ${kind}` }, ENDS[end] || end || (won ? "won" : "lost"));
}

export function button(label, onclick, properties) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

// A part that is folded until a reader opens it. It stays open when what is around it is drawn again.
export function fold(unfolded, name, summary, body, { kind = "fold", onopen = () => {} } = {}) {
  return h("details", { class: kind, open: unfolded.has(name), ontoggle: ({ target }) => {
    if (!target.open) {
      unfolded.delete(name);
      return;
    }
    unfolded.add(name);
    onopen();
  } }, h("summary", {}, summary), body);
}

export function empty(...text) {
  return h("div", { class: "empty" }, ...text);
}

const MOST_NOTES = 12;

export function notes(list) {
  if (!list || !list.length) return null;
  return h("div", { class: "notes", role: "note" }, h("strong", {}, "Not everything could be read"),
    h("ul", {}, list.slice(0, MOST_NOTES).map((note) => h("li", {}, note)), list.length > MOST_NOTES ? h("li", {}, `and ${(list.length - MOST_NOTES).toLocaleString("en")} more`) : null));
}
