// One view at a time, live or at a moment that stands still.

import { current, question } from "./route.js";

let source = null;
let serial = 0;

export function follow(show, status) {
  serial += 1;
  const mine = serial;
  source?.close();
  source = null;
  const asked = current();
  if (asked.to) {
    status("paused");
    return once(asked).then((view) => mine === serial && show(view), (error) => mine === serial && status(error.status === 401 ? "login" : "lost"));
  }
  source = new EventSource(`/api/v1/events?${question(asked)}`);
  source.addEventListener("view", (event) => {
    if (mine !== serial) return;
    status("live");
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", async () => {
    if (mine !== serial) return;
    status("lost");
    const answer = await fetch("/api/v1/health").catch(() => null);
    if (mine !== serial) return;
    if (answer?.status === 401) { source.close(); status("login"); }
    else if (source.readyState === EventSource.CLOSED) setTimeout(() => mine === serial && follow(show, status), 2000);
  });
  return Promise.resolve();
}

async function once(asked) {
  const answer = await fetch(`/api/v1/view?${question(asked)}`);
  if (!answer.ok) throw Object.assign(new Error("refused"), { status: answer.status });
  return answer.json();
}

export async function found(text, models) {
  const lists = await Promise.all(models.slice(0, 8).map(async ({ model, version }) => {
    const query = new URLSearchParams({ model, version, q: text, limit: 60 });
    const answer = await fetch(`/api/v1/series?${query}`);
    return answer.ok ? (await answer.json()).series : [];
  }));
  return lists.flat();
}

export async function models() {
  const answer = await fetch("/api/v1/models");
  return answer.ok ? (await answer.json()).models : [];
}
