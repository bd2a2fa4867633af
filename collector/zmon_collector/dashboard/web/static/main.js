// The page: address, live updates, search, pause, theme, keys.

import { prepare, repaint } from "./charts.js";
import { clock, el, icon, shortened } from "./dom.js";
import { follow, models, searchSeries } from "./live.js";
import { RANGES, address, current, go, kept, seriesOf } from "./route.js";
import { show } from "./views.js";

const NAV = [["overview", "Models"], ["alerts", "Alerts"], ["health", "Health"]];
const by = (id) => document.getElementById(id);
let shownAt = 0; // epoch seconds

// --- theme ---

function applyTheme(name) {
  document.documentElement.dataset.theme = name;
  by("theme").replaceChildren(icon(name === "dark" ? "sun" : "moon"));
}

function toggleTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("zmon-theme", name);
  applyTheme(name);
  repaint();
}

// --- pause: the address holds the moment at which the view stops ---

function pause() {
  go({ to: current().to ? "" : String(shownAt || Math.floor(Date.now() / 1000)) });
}

// --- search ---

let newest = 0;
let answered = null; // resolves when the box shows what was typed last

async function search(text) {
  newest += 1;
  const request = newest;
  const box = by("found");
  if (!text.trim()) return close();
  const params = current();
  const where = params.model ? [{ model: params.model, version: params.version ?? "" }] : await models();
  const series = await searchSeries(text, where);
  if (request !== newest) return;
  const once = new Map();
  for (const names of series) {
    const link = address(seriesOf(names));
    if (!once.has(link)) once.set(link, names);
  }
  const rows = [...once].slice(0, 60).map(([link, { model, what, stat: _, model_version: __, agent_id: ___, ...own }]) =>
    el("a", { href: link, role: "option" }, el("span", { class: "cut" }, shortened(Object.values(own).join(" · ") || what)),
      el("span", { class: "dim cut" }, Object.keys(own).length ? what : shortened(model, 30))));
  box.replaceChildren(...(rows.length ? rows : [el("p", {}, "No series matches these words.")]));
  box.hidden = false;
  by("search").setAttribute("aria-expanded", "true");
}

function close() {
  by("found").hidden = true;
  by("search").setAttribute("aria-expanded", "false");
}

// Open the chosen series, or the first, once the box no longer shows the answer to less text.
async function pick() {
  await answered;
  (by("found").querySelector("[aria-selected=true]") ?? by("found").querySelector("a"))?.click();
}

function choose(step) {
  const links = [...by("found").querySelectorAll("a")];
  const at = links.findIndex((link) => link.getAttribute("aria-selected") === "true");
  links[at]?.removeAttribute("aria-selected");
  const next = links[Math.max(0, Math.min(links.length - 1, at + step))];
  next?.setAttribute("aria-selected", "true");
  next?.scrollIntoView({ block: "nearest" });
}

// --- login ---

function login() {
  const input = el("input", { type: "password", autocomplete: "current-password", "aria-label": "Token", placeholder: "Token" });
  const message = el("p", { class: "dim", role: "alert" }, "This collector requires a token.");
  const form = el("form", { class: "card login" }, el("h1", {}, "zmon"), message, input, el("button", {}, "Open"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch("/login", { method: "POST", body: JSON.stringify({ token: input.value }) });
    if (answer.ok) location.reload();
    else message.textContent = "This is not the token.";
  });
  by("content").replaceChildren(form);
  input.focus();
}

// --- updates and keys ---

const STATUS = { live: "Live", paused: "Paused", lost: "Connection lost, reconnecting", waiting: "Connecting" };

function status(name) {
  if (name === "login") return login();
  by("connection").dataset.state = name;
  by("connection").textContent = STATUS[name];
  const params = current();
  by("notice").hidden = !params.to;
  if (params.to) by("notice").textContent = `Paused at ${clock(Number(params.to))}. Press p to resume.`;
}

function update(view) {
  shownAt = view.to ?? Math.floor(Date.now() / 1000);
  by("stamp").textContent = `Updated ${clock(Date.now() / 1000)}, local time`;
  document.body.dataset.updates = String(Number(document.body.dataset.updates ?? 0) + 1);
  show(view);
}

function arrange() {
  const params = current();
  const place = params.view === "model" || params.view === "series" ? "overview" : params.view;
  by("nav").replaceChildren(...NAV.map(([name, title]) =>
    el("a", { href: address({ ...kept(), view: name }), "aria-current": name === place ? "page" : null }, title)));
  by("ranges").replaceChildren(...RANGES.map((range) =>
    el("button", { type: "button", "aria-pressed": String(range === params.range), onclick: () => go({ range, to: "" }) }, range)));
  by("ranges").hidden = false;
  by("pause").replaceChildren(icon(params.to ? "play" : "pause"));
  by("pause").setAttribute("aria-pressed", String(Boolean(params.to)));
  close();
  status(params.to ? "paused" : "waiting");
  follow(update, status);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") { event.target.blur(); close(); }
    return;
  }
  const act = { "/": () => by("search").focus(), p: pause, t: toggleTheme, Escape: close };
  NAV.forEach(([name], i) => { act[String(i + 1)] = () => { location.hash = address({ ...kept(), view: name }); }; });
  if (act[event.key]) { event.preventDefault(); act[event.key](); }
}

const dark = matchMedia("(prefers-color-scheme: dark)").matches;
applyTheme(current().theme ?? localStorage.getItem("zmon-theme") ?? (dark ? "dark" : "light"));
by("theme").addEventListener("click", toggleTheme);
by("pause").addEventListener("click", pause);
for (const name of ["input", "focus"]) by("search").addEventListener(name, (event) => { answered = search(event.target.value); });
by("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") choose(1);
  else if (event.key === "ArrowUp") choose(-1);
  else if (event.key === "Enter") pick();
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => { if (!event.target.closest(".find")) close(); });
document.addEventListener("keydown", keys);
window.addEventListener("hashchange", arrange);
await prepare();
arrange();
