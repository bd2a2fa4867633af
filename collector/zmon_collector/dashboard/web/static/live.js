// One view at a time, live or paused at a moment.

import { current, queryOf } from "./route.js";

let source = null;
let serial = 0;

export function follow(show, status) {
  serial += 1;
  const subscription = serial;
  source?.close();
  source = null;
  const params = current();
  if (params.to) {
    status("paused");
    return once(params).then((view) => subscription === serial && show(view), (error) => subscription === serial && status(error.status === 401 ? "login" : "lost"));
  }
  source = new EventSource(`/api/v1/events?${queryOf(params)}`);
  source.addEventListener("view", (event) => {
    if (subscription !== serial) return;
    status("live");
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", async () => {
    if (subscription !== serial) return;
    status("lost");
    const answer = await fetch("/api/v1/health").catch(() => null);
    if (subscription !== serial) return;
    if (answer?.status === 401) { source.close(); status("login"); }
    else if (source.readyState === EventSource.CLOSED) setTimeout(() => subscription === serial && follow(show, status), 2000);
  });
  return Promise.resolve();
}

async function once(params) {
  const answer = await fetch(`/api/v1/view?${queryOf(params)}`);
  if (!answer.ok) throw Object.assign(new Error("refused"), { status: answer.status });
  return answer.json();
}

export async function searchSeries(text, models) {
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
