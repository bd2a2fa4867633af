"""The settings of one model, and the store of all models' settings, whose content a reload replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from zmon.batch import Schema
from zmon.contract import Metric, Value
from zmon.errors import ConfigurationError
from zmon.reference import Profile
from zmon_collector.config.sections import Config, ModelSection
from zmon_collector.config.series_selection import Ranks, SeriesFilter, SeriesSelection, matches
from zmon_collector.config.values import EXPECTED
from zmon_collector.config.window_policy import WindowPolicy
from zmon_collector.windows.window import WindowRules


@dataclass(frozen=True)
class ModelPolicy:
    """The settings of one model: its own section over those that hold for all models. Immutable.

    Attributes
    ----------
    config : Config
    model : str
    reference : Profile or None
        The profile of the file that the model's section names.
    ranks : dict
        Presets of each metric's series, which the policies of a store share.
    """

    config: Config
    model: str
    reference: Profile | None = None
    ranks: dict[str, Ranks] = field(default_factory=dict, repr=False, compare=False)

    @property
    def _section(self) -> ModelSection:
        return self.config.models.get(self.model, ModelSection())

    def _setting(self, name: str) -> Any:
        """Return a key of [models.NAME], or of [metrics] when the model has none of its own."""
        value = getattr(self._section, name)
        return getattr(self.config.metrics, name) if value is None else value

    @cached_property
    def rules(self) -> WindowRules:
        """Rules by which the model's windows open and close."""
        section, common = self._section, self.config.collector
        length = section.window or common.window
        grace = common.grace if section.grace is None else section.grace
        return WindowRules(
            period=length,
            grace=min(length / 10, 10.0) if grace is None else grace,
            idle=common.idle if section.idle is None else section.idle,
            max_wait=common.max_wait if section.max_wait is None else section.max_wait,
            open_windows=self.config.limits.open_windows,
            agents=self.config.limits.agents,
            features=self.config.limits.features,
        )

    @property
    def sample_rows(self) -> int:
        """Rows of the sample of each window."""
        return self._section.sample_rows or self.config.collector.sample_rows

    @cached_property
    def selection(self) -> SeriesSelection:
        """Selection of the series that are emitted."""
        return SeriesSelection(**{key.name: self._setting(key.name) for key in fields(SeriesSelection)})

    @cached_property
    def emits(self) -> Callable[[Metric[Any], Value], bool]:
        """``emits(metric, value)``: whether a value of a metric is emitted."""
        return SeriesFilter(self.selection, self.ranks).emits

    def options(self, metric: str, plugin: str) -> Mapping[str, Any]:
        """Return a metric's options: those of all metrics, its plugin's table over them, and the model's own on top."""
        shared: dict[str, Any] = {
            "segments": matches(self._setting("segment_metrics"), metric),
            "max_segments": self._setting("max_segments"),
        }
        windows = self._setting("reference_windows")
        if windows and self._section.reference is None:
            shared["reference_windows"] = windows
        return {**shared, **self.config.plugins.get(plugin, {}), **self._section.metrics.get(metric, {})}

    def for_windows(self, editions: Mapping[str, str], plugins: Mapping[str, str]) -> WindowPolicy:
        """Return the settings of a window that opens now, with metrics of these editions and of these plugins."""
        options = {metric: self.options(metric, plugin) for metric, plugin in plugins.items()}
        return WindowPolicy(self.rules, self.sample_rows, self.selection, editions, options, self.ranks)

    @property
    def expected(self) -> Mapping[str, int]:
        """The sizes that `zmon validate` assumes; `reference` is 1 where drift will be measured."""
        section = self._section
        measured = section.reference is not None or self._setting("reference_windows") > 0
        return {**EXPECTED, **self.config.metrics.expect, **section.expect, "reference": int(measured)}


class PolicyStore:
    """The policies of all models. Any thread may read it while the collector's thread replaces its content.

    Parameters
    ----------
    config : Config
    profiles : mapping of str to Profile, optional
        The reference profile of each model that has one; by default the files that the configuration names are read.

    Raises
    ------
    ConfigurationError
        A file is not a valid profile.
    """

    def __init__(self, config: Config, profiles: Mapping[str, Profile] | None = None) -> None:
        self._ranks: dict[str, Ranks] = {}
        # Together in one attribute: a thread that was interrupted by a reload must not put a policy of the old
        # configuration among those of the new one.
        self._current: tuple[Config, Mapping[str, Profile], dict[str, ModelPolicy]]
        self._current = config, read_profiles(config) if profiles is None else profiles, {}

    def of(self, model: str) -> ModelPolicy:
        """Return a model's policy; the same object until the next reload."""
        config, profiles, policies = self._current
        policy = policies.get(model)
        if policy is None:
            policy = policies[model] = ModelPolicy(config, model, profiles.get(model), self._ranks)
        return policy

    def replace(self, config: Config, schemas: Iterable[tuple[str, Schema]] = ()) -> None:
        """Take over a changed configuration, with its reference files read again.

        Raises ConfigurationError, and changes nothing, when a file is not a valid profile or does not fit a model's
        schema.
        """
        profiles = read_profiles(config)
        check_profiles(profiles, schemas)
        self._current = config, profiles, {}

    def forget(self, model: str) -> None:
        """Drop the policy of a model that is gone: names come from publishers, and would pile up."""
        self._current[2].pop(model, None)


def read_profiles(config: Config) -> dict[str, Profile]:
    """Read the reference files of a configuration, by model; raise ConfigurationError for an invalid profile."""
    profiles = {}
    for model, section in config.models.items():
        if section.reference is not None:
            try:
                profiles[model] = Profile.load(section.reference)
            except ConfigurationError as error:
                raise ConfigurationError(f"[models.{model}] reference: {error}") from None
    return profiles


def check_profiles(profiles: Mapping[str, Profile], schemas: Iterable[tuple[str, Schema]]) -> None:
    """Raise ConfigurationError when a model's profile does not fit the schema of its rows."""
    for model, schema in schemas:
        conflict = profiles[model].conflict(schema) if model in profiles else ""
        if conflict:
            raise ConfigurationError(f"[models.{model}] reference: {conflict}")
