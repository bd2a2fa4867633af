"""The look of figures: one accent, a palette for classes, and a light and a dark plotly template. Pure data."""

from __future__ import annotations

from typing import Any

ACCENT = "#5b6cf0"
SOFT = "rgba(91,108,240,0.18)"
FAINT = "rgba(91,108,240,0.09)"
SECOND = "#12a594"
WARM = "#e5734a"
QUIET = "#8d95a6"
# Ten hues of like weight, in an order in which neighbours stay apart.
PALETTE = (
    "#5b6cf0", "#12a594", "#e5a13a", "#d6539b", "#4aa3e0", "#8a63d2", "#7fae3f", "#e5734a", "#5f7d95", "#b8863b",
)  # fmt: skip
RISING = [[0.0, "rgba(128,136,160,0.07)"], [0.25, "rgba(91,108,240,0.35)"], [0.6, "#5b6cf0"], [1.0, "#2b2f8f"]]
SCORE = [[0.0, "#e5734a"], [0.5, "#f0cf9a"], [0.8, "#8fb8d8"], [1.0, "#5b6cf0"]]
SHIFT = [[0.0, "#12a594"], [0.5, "rgba(128,136,160,0.07)"], [1.0, "#e5734a"]]

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def _template(ink: str, dim: str, line: str, panel: str) -> dict[str, Any]:
    axis = {
        "gridcolor": line,
        "linecolor": line,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "ticklabelstandoff": 6,
        "tickfont": {"color": dim, "size": 11},
        "title": {"font": {"color": dim, "size": 11}, "standoff": 8},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 12, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(PALETTE),
            "margin": {"l": 44, "r": 12, "t": 30, "b": 28},
            "hovermode": "x unified",
            "hoverlabel": {"bgcolor": panel, "bordercolor": line, "font": {"color": ink, "size": 12}},
            "legend": {
                "orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom",
                "font": {"color": dim, "size": 11}, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)",
            },
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": axis,
            "yaxis2": axis,
            "coloraxis": {"colorbar": {"tickfont": {"color": dim}}},
        }
    }  # fmt: skip


TEMPLATES = {
    "light": _template("#1b2130", "#6a7286", "#e6e8ef", "#ffffff"),
    "dark": _template("#e8eaf2", "#949cb2", "#2a3040", "#1a1f2b"),
}
