// The views: each creates its elements once, and fills them at every update.

import { draw, forget } from "./charts.js";
import { amount, bytes, clock, el, share, shortened, spark, state } from "./dom.js";
import { address, current, go, kept, seriesOf } from "./route.js";

let shown = null; // { key, cards }
let content = null;

export function show(view) {
  content ??= document.getElementById("content");
  const { view: name, model, version, what, agent, ...rest } = current();
  const names = ["class_name", "feat_name", "category", "segment_name", "segment_value", "predicted", "reason"].map((each) => rest[each]);
  const key = JSON.stringify([name, model, version, what, agent, names]);
  if (view.view !== name) return;
  if (shown?.key !== key) {
    forget();
    content.replaceChildren();
    shown = { key, cards: new Map(), top: content.appendChild(el("div")), grid: content.appendChild(el("div", { class: "grid" })) };
    window.scrollTo(0, 0);
  }
  if (view.error) return fill(shown.top, el("div", { class: "card empty" }, el("span", {}, `This view cannot be shown: ${view.error}`)));
  ({ overview, model: modelView, series, alerts, health })[name](view);
}

const fill = (node, ...children) => node.replaceChildren(...children.flat().filter(Boolean));

const empty = (text) => el("div", { class: "empty" }, el("span", {}, text));

function table(columns, rows, widths = []) {
  const heads = columns.map((name, i) => el("th", { scope: "col", style: widths[i] && `width: ${widths[i]}` }, name));
  return el("table", { class: "table" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows));
}

// --- cards ---

function cards(view, tall = new Set()) {
  const zoom = `${shown.key} ${current().range} ${current().to ?? ""}`;
  for (const panel of view.panels) {
    let card = shown.cards.get(panel.id);
    if (!card) {
      const chart = el("div", { class: "chart", role: "img", "aria-label": panel.title });
      const note = el("p", { class: "cut" });
      const csv = el("a", { class: "csv", title: "Download these points as CSV", download: true }, "CSV");
      const node = el("section", { class: `card span-${panel.span} ${tall.has(panel.id) ? "tall" : ""}`, "data-panel": panel.id },
        el("header", {}, el("h2", {}, panel.title), note, panel.what && view.model ? csv : null), chart);
      card = { node, chart, note, csv, filled: null };
      shown.cards.set(panel.id, card);
      shown.grid.append(node);
    }
    card.note.textContent = panel.note;
    card.note.title = panel.note;
    if (view.model) card.csv.href = exported(view, panel.what);
    if (panel.figure) {
      if (card.filled === false) card.chart.replaceChildren();
      card.filled = true;
      draw(card.chart, panel.figure, zoom);
    } else if (card.filled !== false) {
      if (card.filled) window.Plotly.purge(card.chart);
      card.filled = false;
      fill(card.chart, empty(panel.empty));
    }
  }
}

function exported(view, what) {
  const own = view.names ? Object.fromEntries(Object.entries(view.names).filter(([name]) => name !== "what")) : {};
  const query = { model: view.model, version: view.version, agent: view.agent, what, from: view.from, to: view.to, format: "csv", ...own };
  return `/api/v1/points?${new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined))}`;
}

function facts(...entries) {
  return el("div", { class: "card facts" }, entries.map(([name, value, unit, line]) =>
    el("div", { class: "fact" }, el("div", { class: "name" }, name),
      el("div", { class: "value cut" }, value, unit ? el("small", {}, unit) : null), line ?? null)));
}

// Split "96.4 %" into number and unit.
const parted = (text) => { const at = text.lastIndexOf(" "); return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)]; };

function missing(view) {
  const text = `No windows of ${shortened(view.model)} ${shortened(view.version)} yet. They appear when the first one closes.`;
  fill(shown.top, el("div", { class: "card empty" }, el("span", {}, text)));
}

function picker(name, options, chosen, first) {
  const select = el("select", { "aria-label": name, onchange: (event) => go({ [name]: event.target.value }) });
  if (first) select.append(el("option", { value: "" }, first));
  for (const option of options) {
    if (first && !option) continue;
    select.append(el("option", { value: option, selected: option === chosen }, shortened(option, 40) || "no version"));
  }
  return select;
}

// --- overview ---

function overview(view) {
  document.title = "zmon";
  if (!view.models.length) {
    fill(shown.top, el("div", { class: "head" }, el("h1", {}, "Models")), el("div", { class: "card" },
      empty("No windows yet. Give a publisher this collector's address; the first model appears when its first window closes.")));
    return;
  }
  const columns = ["Model", "State", "Rows", "Confidence", "Accuracy", "Lost", "Alerts"];
  const rows = view.models.flatMap((model) => [line(model, model), ...model.agents.map((agent) => line(agent, model, agent.agent))]);
  const agents = view.models.reduce((sum, model) => sum + model.agents.length, 0);
  const silent = view.models.flatMap((model) => model.agents).filter((agent) => agent.state === "silent").length;
  const flow = view.models.filter((model) => model.state !== "silent").reduce((sum, model) => sum + model.rows_per_second, 0);
  fill(shown.top,
    el("div", { class: "head" }, el("h1", {}, "Models"),
      el("span", { class: "dim" }, `${view.models.length} model${view.models.length > 1 ? "s" : ""}, ${agents} replica${agents === 1 ? "" : "s"}${silent ? `, ${silent} silent` : ""}`),
      el("span", { class: "side num dim" }, `${amount(flow)} rows/s`)),
    el("div", { class: "card" }, table(columns, rows, ["26%", "11%", "17%", "17%", "17%", "7%", "6%"])));
}

function line(entry, model, agent = "") {
  const link = address({ ...kept(), view: "model", model: model.model, version: model.version, agent });
  const name = agent || model.model;
  const score = entry.accuracy ?? entry.estimated;
  return el("tr", { class: agent ? "replica" : model.agents.length ? "lead" : "" },
    el("td", {}, el("div", { class: "cell" }, el("a", { class: "name cut", href: link, title: shortened(name, 400) }, shortened(name)),
      !agent && model.version ? el("span", { class: "dim cut" }, shortened(model.version, 24)) : null)),
    el("td", {}, state(entry.state)),
    el("td", {}, el("div", { class: "cell" }, el("span", { class: "num" }, `${amount(entry.rows_per_second)} /s`), spark(entry.trend.rows_per_second, 0))),
    el("td", {}, el("div", { class: "cell" }, el("span", { class: "num" }, share(entry.confidence)), spark(entry.trend.confidence, 0, 1))),
    el("td", {}, el("div", { class: "cell" }, el("span", { class: "num", title: entry.accuracy === null && score !== null ? "estimated" : "" }, share(score)), spark(entry.trend.accuracy, 0, 1))),
    el("td", { class: "num" }, entry.loss ? share(entry.loss) : "0"),
    el("td", { class: "num" }, agent ? "" : String(entry.alerts)));
}

// --- a model ---

function modelView(view) {
  document.title = `${shortened(view.model, 40)} – zmon`;
  if (view.missing) return missing(view);
  const sum = view.summary;
  const score = sum.accuracy ?? sum.estimated;
  fill(shown.top,
    el("div", { class: "head" },
      el("a", { class: "crumb", href: address({ ...kept(), view: "overview" }) }, "Models /"),
      el("h1", { class: "cut", title: shortened(view.model, 400) }, shortened(view.model)),
      sum.state ? state(sum.state) : null,
      el("div", { class: "side" },
        view.versions.length > 1 || view.version ? picker("version", view.versions, view.version) : null,
        view.agents.length > 1 ? picker("agent", view.agents, view.agent, "All replicas") : null)),
    facts(
      ["Rows", amount(sum.rows_per_second), "/s", spark(sum.trend?.rows_per_second ?? [], 0)],
      ["Confidence", ...parted(share(sum.confidence)), spark(sum.trend?.confidence ?? [], 0, 1)],
      [sum.accuracy === null && score !== null ? "Accuracy, estimated" : "Accuracy", ...parted(share(score)), spark(sum.trend?.accuracy ?? [], 0, 1)],
      ["Lost or rejected", ...parted(share(sum.loss))],
      ["Late", amount(sum.late), "rows"],
      ["Newest window", clock(sum.newest), `of ${view.period} s`]));
  cards(view, new Set(["movement"]));
  movers(view);
  refusals(view);
}

// Rows that were rejected, or taken without a part, by reason. The details come from publishers: they are text only.
function refusals(view) {
  let card = shown.cards.get("refusals");
  if (!card) {
    card = { node: el("section", { class: "card span-12", "data-panel": "refusals" }) };
    shown.cards.set("refusals", card);
  }
  if (!view.refusals.length) return card.node.remove();
  if (!card.node.isConnected) shown.grid.append(card.node);
  fill(card.node,
    el("header", {}, el("h2", {}, "Rejected and degraded rows"), el("p", { class: "cut" }, "By reason; the newest detail")),
    table(["Rows", "", "Reason", "Detail", "Replica"], view.refusals.map((row) => el("tr", {},
      el("td", { class: "num" }, amount(row.rows)), el("td", {}, row.kind), el("td", { class: "cut", title: row.reason }, shortened(row.reason)),
      el("td", { title: row.detail }, row.detail ?? el("span", { class: "dim" }, "none since the collector was started")),
      el("td", { class: "cut" }, shortened(row.agent ?? "")))), ["9%", "10%", "20%", "46%", "15%"]));
}

function movers(view) {
  let card = shown.cards.get("movers");
  if (!card) {
    const list = el("div");
    const filter = el("input", { type: "search", placeholder: "Filter features", "aria-label": "Filter features", oninput: () => rows(card) });
    const node = el("section", { class: "card span-4 tall", "data-panel": "movers" },
      el("header", {}, el("h2", {}, "Moved most"), el("p", { class: "cut" })),
      el("div", { class: "list" }, filter, list));
    card = { node, list, filter, note: node.querySelector("p") };
    shown.cards.set("movers", card);
    shown.cards.get("movement").node.after(node);
  }
  card.view = view;
  const { rows: found, features = 0 } = view.movers;
  card.note.textContent = features > found.length ? `${found.length} of ${features}; search finds the others` : features ? `${features} features, by their peak` : "";
  rows(card);
}

function rows(card) {
  const { view } = card;
  const wanted = card.filter.value.toLowerCase();
  const unit = view.movers.kind === "psi" ? "" : " σ";
  const found = view.movers.rows.filter((row) => row.name.toLowerCase().includes(wanted));
  fill(card.list, found.length ? found.map((row) =>
    el("a", { href: address(seriesOf({ what: "feature_value", model: view.model, model_version: view.version, agent_id: view.agent, feat_name: row.name })), title: `${shortened(row.name, 400)}: now ${row.now ?? "–"}${unit}` },
      el("span", { class: "cut" }, shortened(row.name)), spark(row.trend),
      el("span", { class: "num" }, `${row.peak.toFixed(2)}${unit}`)))
    : empty(view.movers.rows.length ? "No such feature among these; the search finds all." : "No inputs yet."));
}

// --- a series ---

function series(view) {
  if (view.missing) return missing(view);
  const { what, ...own } = view.names;
  const name = Object.values(own).join(" · ") || what;
  document.title = `${shortened(name, 40)} – zmon`;
  fill(shown.top, el("div", { class: "head" },
    el("a", { class: "crumb cut", href: address({ ...kept(), view: "model", model: view.model, version: view.version, agent: view.agent }) }, `${shortened(view.model, 40)} /`),
    el("h1", { class: "cut", title: shortened(name, 400) }, shortened(name)),
    el("span", { class: "dim" }, Object.values(own).length ? what : ""),
    el("div", { class: "side" }, view.agents.length > 1 ? picker("agent", view.agents, view.agent, "All replicas") : null)));
  cards(view);
}

// --- alerts ---

function alerts(view) {
  document.title = "Alerts – zmon";
  const rows = view.alerts.map((alert) => el("tr", {},
    el("td", {}, state(alert.state === "firing" ? "degraded" : "ok")),
    el("td", { class: "cut" }, shortened(alert.text, 200)), el("td", { class: "cut" }, shortened(alert.model)),
    el("td", { class: "num" }, clock(alert.since)), el("td", { class: "num" }, amount(alert.value))));
  fill(shown.top, el("div", { class: "head" }, el("h1", {}, "Alerts")), el("div", { class: "card" },
    rows.length ? table(["State", "Alert", "Model", "Since", "Value"], rows) : empty("No alert has fired.")));
}

// --- the collector's own health ---

function health(view) {
  document.title = "Health – zmon";
  const own = view.health;
  const counters = Object.entries(own.counters ?? {});
  const count = (name) => counters.filter(([key]) => key.split("{")[0] === name).reduce((sum, [, value]) => sum + value, 0);
  const bad = [...Object.entries(own.sinks ?? {}).filter(([, each]) => each !== "ok"), ...view.plugins.filter((row) => row.state !== "ok")];
  fill(shown.top,
    el("div", { class: "head" }, el("h1", {}, "Collector"), state(bad.length ? "degraded" : "ok"),
      el("span", { class: "side dim" }, own.data ? `${own.data}, process ${own.pid}` : "")),
    facts(["Rows", amount(count("rows"))], ["Late", amount(count("late") + count("late_or_conflicting")), "rows"], ["Lost", amount(count("lost")), "rows"],
      ["Rejected", amount(count("rejected")), "rows"], ["Publishers", amount(own.streams)], ["History", ...parted(bytes(view.history.bytes))]));
  cards(view);
  let card = shown.cards.get("table");
  if (!card) {
    card = { node: el("section", { class: "card span-12", "data-panel": "table" }) };
    shown.cards.set("table", card);
    shown.grid.append(card.node);
  }
  fill(card.node, table(["Plugin", "Kind", "State", "Seconds", "From"], view.plugins.map((row) => el("tr", {},
    el("td", { class: "cut" }, shortened(row.name)), el("td", {}, row.kind),
    el("td", {}, el("span", { class: "state", "data-state": row.state === "ok" ? "ok" : "degraded", title: row.error }, row.state)),
    el("td", { class: "num" }, row.seconds === undefined ? "" : row.seconds.toFixed(2)), el("td", { class: "cut dim" }, row.origin)))));
}
