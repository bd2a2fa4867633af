// The address: the view, and everything that a link must restore.

export const RANGES = ["5m", "15m", "1h", "6h", "24h", "7d", "all"];
const VIEWS = ["overview", "model", "series", "alerts", "health"];

export function current() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parameters = Object.fromEntries(new URLSearchParams(query));
  return { range: "15m", ...parameters, view: VIEWS.includes(path) ? path : "overview" };
}

// Return the address of a view without empty values.
export function address({ view, ...parameters }) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export const go = (change) => { location.hash = address({ ...current(), ...change }); };

// Return what every link keeps: the time range, and the moment of a pause.
export function kept() {
  const { range, to } = current();
  return { range, to };
}

export const seriesOf = (names) => {
  const { model, model_version: version = "", agent_id: agent = "", stat: _, ...own } = names;
  return { ...kept(), view: "series", model, version, agent, ...own };
};

export const queryOf = ({ view, theme: _, ...parameters }) => new URLSearchParams({ view, ...parameters }).toString();
