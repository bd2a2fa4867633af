"""The configuration: defaults, what wins, and errors that say what, where and how to mend it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from zmon_collector.config import Config, dump, load, parse
from zmon_collector.config.policy import ModelPolicy

from zmon.errors import ConfigurationError
from zmon.options import duration

WRONG = {
    "an unknown section": ("[colector]", "unknown section [colector]; did you mean 'collector'?"),
    "an unknown key": ("[collector]\nwindo = '60s'", "[collector] has an unknown key 'windo'; did you mean 'window'?"),
    "an unknown key of a model": ("[models.fraud]\ngrase = '1s'", "[models.fraud] has an unknown key 'grase'"),
    "a number for a duration": ("[collector]\nwindow = 60", 'window: 60 is not a duration; write it as "500ms", "60s"'),
    "half a second": ("[collector]\nwindow = '500ms'", "whole number of seconds"),
    "a negative limit": ("[limits]\nopen_windows = -1", "open_windows: -1 is not a whole number from 1"),
    "a bool for a number": ("[limits]\nopen_windows = true", "is not a whole number"),
    "a preset": ("[metrics]\npreset = 'all'", "not one of minimal, default, full"),
    "an endpoint": ("[collector]\nbind = 'localhost'", "neither 'tcp://HOST:PORT' nor 'ipc://PATH'"),
    "a bind to the network": ("[collector]\nbind = 'tcp://0.0.0.0:5757'", "set insecure = true"),
    "a target without an address": ("[notify.ops]\nkind = 'slack'", "url_env is missing"),
    "a target without its variable": (
        "[notify.ops]\nurl_env = 'ZMON_NOWHERE'",
        "ZMON_NOWHERE must hold an http address",
    ),
    "a kind of target": ("[notify.ops]\nkind = 'pager'", "not one of slack, webhook"),
    "a rule without a bound": (
        "[[alerts]]\nwhat = 'accuracy'",
        "a series (what) or a bound (above, below or sigma) is missing",
    ),
    "a rule of two kinds": ("[[alerts]]\nwhat = 'f1'\nsigma = 3\nabove = 1", "cannot be combined"),
    "a key of a rule": ("[[alerts]]\nforr = 3", "unknown key 'forr'; did you mean 'for'"),
    "one table of alerts": ("[alerts]\nwhat = 'f1'", "write [[alerts]]"),
    "two rules of one name": ("[[alerts]]\nname='a'\nwhat='f1'\nbelow=1\n" * 2, "already named 'a'"),
    "a window of years": ("[models.m]\nwindow = '367d'", "a window is at most 366 days long"),
    "no time for metrics": ("[collector]\nmetric_timeout = '0s'", "write a duration above zero"),
    "a limit beyond files": (f"[limits]\nlabel_bytes = {2**70}", "write a smaller number"),
    "models without tables": ("[models]\nfraud = 1", "hold tables"),
    "no TOML": ("[collector", "not valid TOML"),
    "a number of 5,000 digits": (f"[limits]\nmodels = {'9' * 5000}", "has more than 64 bits; write a smaller number"),
    "a number of 5,000 hexadecimal digits": (f"[plugins.drift]\nx = 0x{'f' * 5000}", "has more than 64 bits"),
    "nested lists": ("[plugins.drift]\nx = " + "[" * 100_000, "more than 16 lists or tables are nested"),
    "some nested lists": (f"[plugins.drift]\nx = {'[' * 40}{']' * 40}", "more than 16 lists or tables are nested"),
    "nested tables": (f"[{'a.' * 40}a]\nx = 1", "more than 16 lists or tables are nested"),
    "a key of parts without end": ("a." * 100_000 + "a = 1", "line 1 has 100000 dots; write a long list on several"),
    "quoted parts without end": ('"a".' * 100_000 + "a = 1", "line 1 has 100000 dots"),
    "a key without end": (f"{'a' * 100_000} = 1", "the key 'aaaa"),
    "a file without end": ("#" * 3 * 2**20, "it has more than 2,097,152 bytes"),
    "no UTF-8": ("\udcff", "it is not UTF-8 (invalid start byte at byte 0)"),
    "a window of a thousand years": ("[collector]\nwindow = '99999999999s'", "longer than a hundred years"),
    "a window of digits": (f"[collector]\nwindow = '{'9' * 5000}s'", "longer than a hundred years"),
    "a bound that is no number": ("[[alerts]]\nwhat = 'f1'\nabove = nan", "above: nan is not a finite number"),
    "a bound without bound": ("[[alerts]]\nwhat = 'f1'\nabove = -inf", "above: -inf is not a finite number"),
    "a share that is no number": ("[[alerts]]\nwhat = 'f1'\nabove = 1\nhysteresis = nan", "nan is not a share"),
    "a port of digits": (f"[web]\nbind = '127.0.0.1:{'1' * 5000}'", "is not HOST:PORT"),
    "an endpoint's port of digits": (f"[collector]\nbind = 'tcp://127.0.0.1:{'1' * 5000}'", "neither 'tcp://HOST"),
    "a long string": (f"[metrics]\npreset = '{'x' * 100_000}'", "is not one of minimal, default, full"),
}
SENTENCE = 500  # characters; more is no sentence


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_says_what_and_where(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigurationError) as error:
        load(path)
    said = str(error.value)
    assert says in said and len(said) < SENTENCE + len(str(path)), said


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "zmon.toml"
    path.write_text("[collector]\nwindow = '5m'\nidle = '3s'")
    section = load(path, window=10, bind=None).collector
    assert (section.window, section.idle) == (10, 3.0)


def test_models_differ_where_they_say_so() -> None:
    config = parse(
        {
            "collector": {"window": "60s"},
            "metrics": {"preset": "minimal"},
            "models": {"fraud": {"window": "10s", "preset": "full", "metrics": {"performance": {"x": 1}}}},
            "plugins": {"performance": {"x": 0, "y": 2}},
        }
    )
    fraud, other = ModelPolicy(config, "fraud"), ModelPolicy(config, "other")
    assert (fraud.rules.period, other.rules.period) == (10, 60)
    assert (fraud.rules.grace, other.rules.grace) == (1.0, 6.0)
    assert (fraud.selection.preset, other.selection.preset) == ("full", "minimal")
    split = {"segments": True, "max_segments": 20}
    assert fraud.options("performance", "performance") == {"x": 1, "y": 2, **split}
    assert other.options("performance", "performance") == {"x": 0, "y": 2, **split}


def test_grace_is_a_tenth_and_at_most_ten_seconds() -> None:
    assert ModelPolicy(parse({"collector": {"window": "1h"}}), "m").rules.grace == 10.0
    assert ModelPolicy(parse({"collector": {"grace": "0s"}}), "m").rules.grace == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("60s", 60), ("1.5m", 90), ("2h", 7200), ("30d", 2592000)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_what_is_printed_is_read_back_the_same(tmp_path: Path) -> None:
    config = parse(
        {
            "collector": {"window": "5m", "models": ["a*", "b"], "data_dir": 'some "odd" folder\n'},
            "metrics": {"add": ["mcc", "feature_value:q*"], "expect": {"agents": 50}},
            "models": {
                "a.b c": {
                    "idle": "500ms",
                    "drop": [],
                    "stats": ["mean"],
                    "expect": {"features": 784},
                    "metrics": {"m": {"deep": {"x": [1, 2.5, True]}}},
                }
            },
            "sinks": {"anodot_file": {"keep": "12h"}},
        }
    )
    assert parse(tomllib.loads(dump(config))) == config
    assert parse(tomllib.loads(dump(Config()))) == Config()
