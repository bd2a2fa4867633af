"""The report: the panels of every model in written files, as one HTML string with data and plotly.js inside. Pure."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from zmon_collector.dashboard import panels, theme
from zmon_collector.dashboard.overview import Overview
from zmon_collector.dashboard.plotly_js import plotly_js
from zmon_collector.dashboard.timeseries import TimeSeries
from zmon_collector.dashboard.written_model import WrittenModel

SHOWN = 15  # movers

_STYLE = """
:root{color-scheme:light dark;--ground:#f6f7fa;--panel:#fff;--ink:#1b2130;--dim:#667085;--line:#e4e7ee;--accent:#5b6cf0}
@media(prefers-color-scheme:dark){:root{--ground:#10131a;--panel:#171b25;--ink:#e8eaf2;--dim:#98a1b5;--line:#272d3b}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1400px;padding:32px 24px;background:var(--ground);color:var(--ink);
font:14px/1.5 Inter,system-ui,sans-serif}h1{font-size:26px;letter-spacing:-.02em;margin:0}h2{font-size:20px;
margin:36px 0 14px}h3{font-size:14px;margin:0}p{margin:0;color:var(--dim)}.grid{display:grid;
grid-template-columns:repeat(12,minmax(0,1fr));gap:16px}.card{background:var(--panel);border:1px solid var(--line);
border-radius:12px;padding:14px 16px;min-width:0;overflow-wrap:anywhere}.chart{height:260px}.s12{grid-column:span 12}
.s8{grid-column:span 8}.s6{grid-column:span 6}.s4{grid-column:span 4}@media(max-width:900px){.card{grid-column:span 12}}
.empty{display:grid;place-items:center;height:120px;text-align:center}table{width:100%;border-collapse:collapse}
td,th{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--dim)}
"""
_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const data = JSON.parse(document.getElementById("data").textContent);
function draw() {
  for (const [id, figure] of Object.entries(data.figures)) {
    const {data: traces, layout} = structuredClone(figure);
    // As text, because plotly draws a number in the reader's time zone.
    if (layout.xaxis?.type === "date") for (const trace of traces)
      trace.x = trace.x.map((time) => new Date(time).toISOString().slice(0, -1));
    Plotly.react(id, traces, {...layout, template: data.templates[dark.matches ? "dark" : "light"]},
      {displayModeBar: false, responsive: true});
  }
}
dark.addEventListener("change", draw);
draw();
"""


def html_of(series: Sequence[TimeSeries], title: str) -> str:
    """Return the whole report."""
    names = sorted({(ts.get("model"), ts.get("model_version")) for ts in series})
    models = {name: WrittenModel(series, *name) for name in names}
    figures: dict[str, Any] = {}
    parts = [_overview(models), *(_model(" ".join(name).strip(), model, figures) for name, model in models.items())]
    data = json.dumps({"figures": figures, "templates": theme.TEMPLATES}, separators=(",", ":"), allow_nan=False)
    # Within a script element only "</" could end it, and "<!--" change its meaning.
    data = data.replace("<", "\\u003c")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{_text(title)}</h1><p>{_span(series)}; times are UTC</p>{''.join(parts)}"
        f'<script type="application/json" id="data">{data}</script>'
        f"<script>{plotly_js().read_text(encoding='utf-8')}</script><script>{_SCRIPT}</script></body></html>\n"
    )


def _overview(models: Mapping[tuple[str, str], WrittenModel]) -> str:
    overview = Overview()
    for name, model in models.items():
        overview.restore(*name, model.series, model.period)
    rows = []
    for entry in overview.view(0.0):
        for who in (entry, *entry["agents"]):
            cells = (
                f"{entry['model']} {entry['version']}" if who is entry else f"– {who['agent']}",
                f"{who['rows_per_second']:,.1f} /s",
                *(_share(who[key]) for key in ("confidence", "accuracy", "loss")),
            )
            rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th>{name}</th>" for name in ("Newest window", "Rows", "Confidence", "Accuracy", "Lost or rejected")
    )
    return f'<h2>Models</h2><div class="card"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _model(title: str, model: WrittenModel, figures: dict[str, Any]) -> str:
    cards = []
    for panel in model.panels():
        name = f"f{len(figures)}"
        if panel["figure"] is not None:
            figures[name] = panel["figure"]
            body = f'<div class="chart" id="{name}"></div>'
        else:
            body = f'<p class="empty">{_text(panel["empty"])}</p>'
        head = f"<h3>{_text(panel['title'])}</h3><p>{_text(panel['note'])}</p>"
        cards.append(f'<section class="card s{panel["span"]}">{head}{body}</section>')
        if panel["id"] == "movement":
            cards.append(_movers(model))
    return f'<h2>{_text(title)}</h2><div class="grid">{"".join(cards)}</div>'


def _movers(model: WrittenModel) -> str:
    table = panels.mover_table(model.movers())
    unit = "" if table["kind"] == "psi" else " σ"
    rows = "".join(
        f"<tr><td>{_text(row['name'])}</td><td>{row['peak']:.2f}{unit}</td></tr>" for row in table["rows"][:SHOWN]
    )
    return f'<section class="card s4"><h3>Moved most</h3><table>{rows}</table></section>'


def _span(series: Sequence[TimeSeries]) -> str:
    first, last = min(ts.times[0] for ts in series), max(ts.times[-1] for ts in series)
    return " to ".join(f"{datetime.fromtimestamp(int(time), UTC):%Y-%m-%d %H:%M:%S}" for time in (first, last))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _text(text: str) -> str:
    return html.escape(text if len(text) <= 300 else f"{text[:280]}…{text[-10:]}")
