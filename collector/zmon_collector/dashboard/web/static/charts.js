// Figures arrive as plotly JSON; here they get the theme's colours, local time, and an element.

const CONFIG = { displayModeBar: false, responsive: true, displaylogo: false, showTips: false };

let templates = null;
const drawn = new Map(); // element: the figure that it shows, or will show once it is visible

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const entry = drawn.get(target);
    if (!entry) continue;
    entry.visible = isIntersecting;
    if (isIntersecting && entry.dirty) paint(target, entry);
  }
}, { rootMargin: "200px" });

export async function prepare() {
  templates = await (await fetch("/static/templates.json")).json();
}

const theme = () => document.documentElement.dataset.theme;

// Draw a figure in an element, now or once it is scrolled into view. A zoom lasts while `key` stays the same.
export function draw(node, figure, key) {
  let entry = drawn.get(node);
  if (!entry) {
    entry = { visible: false };
    drawn.set(node, entry);
    seen.observe(node);
  }
  const text = JSON.stringify(figure);
  if (entry.text === text && entry.key === key) return;
  Object.assign(entry, { figure, text, key, dirty: true });
  if (entry.visible) paint(node, entry);
}

export function repaint() {
  for (const [node, entry] of drawn) {
    entry.dirty = true;
    if (entry.visible) paint(node, entry);
  }
}

export function forget() {
  for (const node of drawn.keys()) {
    seen.unobserve(node);
    window.Plotly.purge(node);
  }
  drawn.clear();
}

function paint(node, entry) {
  entry.dirty = false;
  const { data, layout } = structuredClone(entry.figure);
  if (layout.xaxis?.type === "date") {
    const [moment, ...others] = new Set(data.flatMap((trace) => trace.x));
    data.forEach((trace) => { trace.x = trace.x.map(local); });
    for (const shape of layout.shapes ?? []) Object.assign(shape, { x0: local(shape.x0), x1: local(shape.x1) });
    for (const note of layout.annotations ?? []) note.x = local(note.x);
    // Around a single window the axis spans two milliseconds: one tick, instead of fractions of a second.
    if (!others.length) Object.assign(layout.xaxis, { tickvals: [local(moment)], tickformat: "%H:%M:%S\n%b %-d, %Y" });
  }
  window.Plotly.react(node, data, { ...layout, template: templates[theme()], uirevision: entry.key, autosize: true }, CONFIG);
}

// Return a time as text of the local clock, which plotly draws as it stands. A number it takes as UTC and shifts itself.
function local(time) {
  return new Date(time - 60000 * new Date(time).getTimezoneOffset()).toISOString().slice(0, -1);
}
