"""Figures of written files for notebooks: the panels of the live page, the features that moved, sample data.

The collector draws them. It is imported by name when it is needed, because this package does not depend on it:
``pip install "zmon-agent[notebook]"``.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zmon.errors import MissingExtraError

__all__ = ["ModelView", "demo"]


class ModelView:
    """View of one model from written files, with the figures of the live page.

    Parameters
    ----------
    points : DataFrame
        From `zmon.read_points`. An empty one gives a view whose panels all say why they are empty.
    model : str, optional
        The first in the table by default.
    version : str, optional
        The version of the model's first points by default; ``""`` when the publisher gave none.

    Attributes
    ----------
    model, version : str
    points : DataFrame
        The points of this model and version.

    Raises
    ------
    MissingExtraError
        The collector, or plotly, is not installed.
    ValueError
        The table has points, but none of this model and version; the text names those that it has.

    Examples
    --------
    >>> import zmon
    >>> from zmon import notebook
    >>> view = notebook.ModelView(zmon.read_points(notebook.demo()))  # doctest: +SKIP
    >>> view.show("confidence")  # doctest: +SKIP
    """

    def __init__(self, points: Any, model: str | None = None, version: str | None = None) -> None:
        self.model = _first(points["model"]) if model is None else model
        of_model = points[points["model"] == self.model]
        self.version = _first(of_model["model_version"]) if version is None else version
        self.points = of_model[of_model["model_version"] == self.version]
        if self.points.empty and not points.empty:
            raise ValueError(f"no points of {self.model!r} {self.version!r}; {_named(points)}")
        self._figures = _collector("dashboard.figures")
        series = _collector("dashboard.timeseries").series_of_frame(points)
        self._written = _collector("dashboard.written_model").WrittenModel(series, self.model, self.version)
        self._panels = {panel["id"]: panel for panel in self._written.panels()}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the panels' names."""
        return iter(self._panels)

    def figure(self, name: str) -> Any:
        """Return a panel as a plotly ``Figure``; None while there is nothing to show.

        Parameters
        ----------
        name : str
            One of the names over which the view iterates: ``"classes"``, ``"confidence"``, ``"movement"``, …
        """
        if name not in self._panels:
            raise KeyError(f"no panel {name!r}; there are {', '.join(self)}")
        panel = self._panels[name]
        return self._drawn(panel["figure"], panel["title"])

    def show(self, name: str) -> None:
        """Show a panel, or print why it is empty."""
        figure = self.figure(name)
        if figure is None:
            sys.stdout.write(f"{self._panels[name]['empty']}\n")
        else:
            figure.show()

    def movers(self) -> list[tuple[str, float]]:
        """Return every feature with the score furthest from 0, the one that moved most first.

        The score is the population stability index where there is a reference, else the shift of the mean in standard
        deviations.
        """
        ranked = self._written.movers()
        return [] if ranked is None else [(ranked.names[i], float(ranked.peak[i])) for i in ranked.order]

    def feature(self, name: str) -> Any:
        """Return a feature over time as a plotly ``Figure``; None when the files hold no values of it.

        A numeric feature is drawn as mean, median and bands between quantiles, a categorical one as shares of its
        categories.
        """
        return self._drawn(self._written.feature(name), self._figures.label(name))

    def _drawn(self, figure: dict[str, Any] | None, title: str) -> Any:
        if figure is None:
            return None
        plotly = _import("plotly.graph_objects", "plotly")
        return plotly.Figure(self._figures.with_template(figure)).update_layout(title=title, margin_t=70)


def demo(folder: str | Path | None = None) -> Path:
    """Compute a minute of the demonstration as sample data: digits whose pixels are inverted for a while.

    Parameters
    ----------
    folder : path, optional
        Where the files go; a temporary folder by default.

    Returns
    -------
    Path
        The folder, for `zmon.read_points`.
    """
    run = _collector("jobs.demo.run")
    target = Path(tempfile.mkdtemp()) / "demo" if folder is None else Path(folder)
    run.run_demo(run.DemoPlan(30, range(12, 22), replay=True), target)
    return target


def _first(column: Any) -> str:
    return str(column.iloc[0]) if len(column) else ""


def _named(points: Any) -> str:
    pairs = points[["model", "model_version"]].drop_duplicates().itertuples(index=False)
    return "the table has " + ", ".join(f"{model!r} {version!r}" for model, version in pairs)


def _collector(module: str) -> Any:
    return _import(f"zmon_collector.{module}", "zmon_collector")


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise MissingExtraError(missing, "notebook") from error
