// Elements from data. Strings become text, never markup.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

const ICONS = {
  pause: "M9 5v14M15 5v14",
  play: "M8 5l11 7-11 7z",
  sun: "M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7l1.4-1.4M4.9 19.1l1.4-1.4m0-11.4L4.9 4.9m14.2 14.2l-1.4-1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
};

export function icon(name) {
  const path = svg("path", { d: ICONS[name], fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" });
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
}

// Draw a sparkline. `low` and `high` fix its scale; by default it fills its height.
export function spark(values, low, high) {
  const node = svg("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length < 2) return node;
  const least = low ?? Math.min(...known);
  const most = high ?? Math.max(...known);
  const height = most - least || 1;
  let pen = "M";
  let path = "";
  values.forEach((value, i) => {
    if (value === null || value === undefined) { pen = "M"; return; }
    const x = (100 * i) / (values.length - 1);
    const y = 19 - (18 * (Math.min(most, Math.max(least, value)) - least)) / height;
    path += `${pen}${x.toFixed(1)} ${(most === least ? 10 : y).toFixed(1)}`;
    pen = "L";
  });
  node.append(svg("path", { d: path }));
  return node;
}

export function state(name) {
  return el("span", { class: "state", "data-state": name }, name);
}

// --- numbers with units ---

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const share = (value) => (known(value) ? `${(100 * value).toFixed(1)} %` : "–");

export function amount(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toPrecision(3);
}

export function bytes(value) {
  if (!known(value)) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
    value /= 1024;
  }
  return "–";
}

export const clock = (seconds) => (known(seconds) && seconds > 0 ? new Date(1000 * seconds).toLocaleTimeString([], { hour12: false }) : "–");

export const shortened = (text, length = 80) => (text.length > length ? `${text.slice(0, length - 14)}…${text.slice(-12)}` : text);
