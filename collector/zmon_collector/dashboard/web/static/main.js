// Puts the page together: address, live updates, search, pause, theme, keys.

import { prepare, repaint } from "./charts.js";
import { clock, el, icon, shortened } from "./dom.js";
import { follow, found, models } from "./live.js";
import { RANGES, address, current, go, kept, seriesOf } from "./route.js";
import { show } from "./views.js";

const NAV = [["overview", "Models"], ["alerts", "Alerts"], ["health", "Health"]];
const by = (id) => document.getElementById(id);
let last = 0; // the moment that is shown

// --- theme ---

function themed(name) {
  document.documentElement.dataset.theme = name;
  by("theme").replaceChildren(icon(name === "dark" ? "sun" : "moon"));
}

function turnTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("zmon-theme", name);
  themed(name);
  repaint();
}

// --- pause: the view stands still at a moment that the address holds ---

function pause() {
  go({ to: current().to ? "" : String(last || Math.floor(Date.now() / 1000)) });
}

// --- search ---

let wanted = 0;

async function search(text) {
  wanted += 1;
  const mine = wanted;
  const box = by("found");
  if (!text.trim()) return close();
  const asked = current();
  const where = asked.model ? [{ model: asked.model, version: asked.version ?? "" }] : await models();
  const series = await found(text, where);
  if (mine !== wanted) return;
  const once = new Map();
  for (const names of series) {
    const link = address(seriesOf(names));
    if (!once.has(link)) once.set(link, names);
  }
  const rows = [...once].slice(0, 60).map(([link, { model, what, stat: _, model_version: __, agent_id: ___, ...own }]) =>
    el("a", { href: link, role: "option" }, el("span", { class: "cut" }, shortened(Object.values(own).join(" · ") || what)),
      el("span", { class: "dim cut" }, Object.keys(own).length ? what : shortened(model, 30))));
  box.replaceChildren(...(rows.length ? rows : [el("p", {}, "No series has these words in its names.")]));
  box.hidden = false;
  by("search").setAttribute("aria-expanded", "true");
}

function close() {
  by("found").hidden = true;
  by("search").setAttribute("aria-expanded", "false");
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
  const said = el("p", { class: "dim", role: "alert" }, "This collector asks for its token.");
  const form = el("form", { class: "card login" }, el("h1", {}, "zmon"), said, input, el("button", {}, "Open"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch("/login", { method: "POST", body: JSON.stringify({ token: input.value }) });
    if (answer.ok) location.reload();
    else said.textContent = "This is not the token.";
  });
  by("content").replaceChildren(form);
  input.focus();
}

// --- everything ---

const SAID = { live: "Live", paused: "Paused", lost: "Connection lost, trying again", waiting: "Connecting" };

function status(name) {
  if (name === "login") return login();
  by("connection").dataset.state = name;
  by("connection").textContent = SAID[name];
  const asked = current();
  by("notice").hidden = !asked.to;
  if (asked.to) by("notice").textContent = `Paused at ${clock(Number(asked.to))}. Press p to go on.`;
}

function update(view) {
  last = view.to ?? Math.floor(Date.now() / 1000);
  by("stamp").textContent = `Updated ${clock(Date.now() / 1000)}, local time`;
  document.body.dataset.updates = String(Number(document.body.dataset.updates ?? 0) + 1);
  show(view);
}

function arrange() {
  const asked = current();
  const place = asked.view === "model" || asked.view === "series" ? "overview" : asked.view;
  by("nav").replaceChildren(...NAV.map(([name, title]) =>
    el("a", { href: address({ ...kept(), view: name }), "aria-current": name === place ? "page" : null }, title)));
  by("ranges").replaceChildren(...RANGES.map((range) =>
    el("button", { type: "button", "aria-pressed": String(range === asked.range), onclick: () => go({ range, to: "" }) }, range)));
  by("ranges").hidden = false;
  by("pause").replaceChildren(icon(asked.to ? "play" : "pause"));
  by("pause").setAttribute("aria-pressed", String(Boolean(asked.to)));
  close();
  status(asked.to ? "paused" : "waiting");
  follow(update, status);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") { event.target.blur(); close(); }
    return;
  }
  const act = { "/": () => by("search").focus(), p: pause, t: turnTheme, Escape: close };
  NAV.forEach(([name], i) => { act[String(i + 1)] = () => { location.hash = address({ ...kept(), view: name }); }; });
  if (act[event.key]) { event.preventDefault(); act[event.key](); }
}

const dark = matchMedia("(prefers-color-scheme: dark)").matches;
themed(current().theme ?? localStorage.getItem("zmon-theme") ?? (dark ? "dark" : "light"));
by("theme").addEventListener("click", turnTheme);
by("pause").addEventListener("click", pause);
by("search").addEventListener("input", (event) => search(event.target.value));
by("search").addEventListener("focus", (event) => search(event.target.value));
by("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") choose(1);
  else if (event.key === "ArrowUp") choose(-1);
  else if (event.key === "Enter") (by("found").querySelector("[aria-selected=true]") ?? by("found").querySelector("a"))?.click();
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => { if (!event.target.closest(".find")) close(); });
document.addEventListener("keydown", keys);
window.addEventListener("hashchange", arrange);
await prepare();
arrange();
