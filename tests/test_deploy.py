"""The deployment examples: parsed, held to their promises, and to the commands, options and keys that exist."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest
from zmon_collector.cli.main import cli
from zmon_collector.config import Config, exposed, parse
from zmon_collector.config.sections import SecuritySection
from zmon_collector.config.values import clients
from zmon_collector.ingest.auth import read_allow_list

import zmon
from tests.support.frameworks import require
from tests.support.ports import free_port
from tests.support.processes import Running, command

FOLDER = Path(__file__).parents[1] / "examples/deploy"
PORTS = [5757, 5758]
HEALTH = 8788
GIB = 2**30


def read(name: str) -> str:
    return (FOLDER / name).read_text()


class Unit(dict[str, str]):
    """[Service] of the unit; several lines of one key are joined."""

    def __init__(self) -> None:
        text = read("zmon.service")
        parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=True)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        assert set(parser.sections()) == {"Unit", "Service", "Install"}
        super().__init__(parser["Service"])


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    return {each["kind"]: each for each in require("yaml").safe_load_all(read("kubernetes.yaml"))}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    service: dict[str, Any] = require("yaml").safe_load(read("compose.yaml"))["services"]["collector"]
    return service


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the last stage."""
    text = re.sub(r"\\\n\s*", "", read("Dockerfile"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(i for i, line in enumerate(lines) if line.startswith("FROM"))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines[last:]]


def instruction(name: str) -> str:
    (found,) = [rest for each, rest in dockerfile() if each == name]
    return found


# --- commands that exist --------------------------------------------------------------------------------------------


def check_command(words: list[str]) -> None:
    """`zmon COMMAND …` with options that the command has."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, words[0]
    options = {name for option in command.params for name in option.opts}
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"zmon {words[0]} has no {word}"


def commands() -> dict[str, list[str]]:
    unit = Unit()
    found = {"ExecStart": shlex.split(unit["ExecStart"])[1:]}
    found["CMD"] = tomllib.loads(f"x = {instruction('CMD')}")["x"]
    for name in ("README.md", "zmon.toml", "clients.toml"):
        for number, line in enumerate(re.findall(r"\bzmon ((?:collect|keygen|validate|reload)\b[^#`\n]*)", read(name))):
            found[f"{name} {number}"] = shlex.split(line)
    return found


@pytest.mark.parametrize("words", commands().values(), ids=commands().keys())
def test_the_commands_and_options_exist(words: list[str]) -> None:
    check_command(words)


def test_they_start_the_same_collector(kubernetes: dict[str, Any], compose: dict[str, Any]) -> None:
    args = container(kubernetes)["args"]
    for words in (args, compose["command"]):
        check_command(words)
        assert words[:3] == ["collect", "--config", "/etc/zmon/zmon.toml"]
    assert instruction("ENTRYPOINT") == '["zmon"]'


# --- the configuration ----------------------------------------------------------------------------------------------


def config() -> Config:
    return parse(tomllib.loads(read("zmon.toml")))


def test_the_configuration_is_valid_and_not_open(tmp_path: Path) -> None:
    loaded = config()
    assert loaded.collector.bind == f"tcp://0.0.0.0:{PORTS[0]}"
    assert not loaded.collector.insecure
    assert exposed(loaded) == {}
    assert tomllib.loads(read("zmon.toml"))["health"] == {"bind": f"0.0.0.0:{HEALTH}"}
    assert loaded.security.clients_file == Path("/etc/zmon/clients.toml")
    allow = read_allow_list(SecuritySection(None, FOLDER / "clients.toml"))
    assert [client.name for client in allow.values()] == ["fraud-serving"]
    assert clients(tomllib.loads(read("clients.toml"))["clients"])


def test_a_collector_runs_with_it_and_answers_the_probes(tmp_path: Path) -> None:
    """As it stands, but for paths and ports."""
    assert command("keygen", "--collector", "zmon", "--out", str(tmp_path)).returncode == 0
    text, port = read("zmon.toml"), free_port()
    for path in ("/run/zmon", "/etc/zmon"):
        text = text.replace(path, str(tmp_path))
    (tmp_path / "zmon.toml").write_text(text.replace(f"0.0.0.0:{HEALTH}", f"127.0.0.1:{port}"))
    (tmp_path / "clients.toml").write_text(read("clients.toml"))
    running = Running(tmp_path / "data", "--config", str(tmp_path / "zmon.toml"))
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            assert answer.status == 200
    said = running.end()
    assert running.process.returncode == 0, said
    assert "insecure" not in said


def test_the_memory_limits_hold_what_the_configuration_lets_in(
    kubernetes: dict[str, Any], compose: dict[str, Any]
) -> None:
    limits = config().limits
    needed = 2 * limits.inflight_bytes + limits.sample_bytes + 2**27 + 300 * 2**20
    for given in (Unit()["MemoryMax"], compose["mem_limit"], container(kubernetes)["resources"]["limits"]["memory"]):
        match = re.fullmatch(r"(\d+)(?:G|g|Gi)", given)
        assert match
        assert needed < int(match[1]) * GIB


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_the_unit_has_a_limit_a_user_and_a_root_it_cannot_write() -> None:
    unit = Unit()
    assert unit["MemoryMax"] == "2G"
    assert unit["DynamicUser"] == "yes"
    assert "User" not in unit
    assert unit["ProtectSystem"] == "strict"
    assert unit["StateDirectory"] == "zmon"
    assert "--data-dir /var/lib/zmon" in unit["ExecStart"]
    assert "ReadWritePaths" not in unit
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(unit["LimitNOFILE"]) >= 65536
    assert unit["ExecStartPre"].split()[-1] == str(config().security.secret_key_file)
    assert unit["RuntimeDirectory"] == "zmon"
    assert unit["LoadCredential"] == "zmon.key_secret:/etc/zmon/zmon.key_secret"


# --- containers -------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_another_user_and_names_its_ports() -> None:
    assert instruction("USER") == "10001:10001"
    assert instruction("EXPOSE").split() == [str(port) for port in (*PORTS, HEALTH)]
    assert instruction("VOLUME") == "/data"
    assert f"http://127.0.0.1:{HEALTH}/healthz" in instruction("HEALTHCHECK")
    assert "--data-dir" in instruction("CMD")
    assert [name for name, _ in dockerfile()].index("USER") < [name for name, _ in dockerfile()].index("CMD")


def test_the_composed_container_has_a_limit_a_user_and_a_root_it_cannot_write(compose: dict[str, Any]) -> None:
    assert compose["mem_limit"] == "2g"
    assert compose["user"] == "10001:10001"
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["ports"] == [f"{port}:{port}" for port in PORTS]
    targets = {each.split(":")[1]: each for each in compose["volumes"]}
    security = config().security
    for path in (security.secret_key_file, security.clients_file, "/etc/zmon/zmon.toml"):
        assert targets[str(path)].endswith(":ro")
    assert not targets["/data"].endswith(":ro")
    assert (FOLDER / compose["build"]["context"] / compose["build"]["dockerfile"]).exists()


def container(kubernetes: dict[str, Any]) -> dict[str, Any]:
    (one,) = kubernetes["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(one, dict)
    return one


def test_the_pod_has_a_limit_a_user_and_a_root_it_cannot_write(kubernetes: dict[str, Any]) -> None:
    pod = kubernetes["StatefulSet"]["spec"]["template"]["spec"]
    one = container(kubernetes)
    assert one["resources"]["limits"]["memory"] == "2Gi"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert one["securityContext"]["readOnlyRootFilesystem"] is True
    assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert one["image"].endswith(f":{zmon.__version__}")


def test_the_pod_keeps_its_data_and_listens_on_both_ports(kubernetes: dict[str, Any]) -> None:
    stateful, service, one = kubernetes["StatefulSet"]["spec"], kubernetes["Service"]["spec"], container(kubernetes)
    assert stateful["replicas"] == 1, "a collector owns its data"
    (claim,) = stateful["volumeClaimTemplates"]
    mounts = {each["mountPath"]: each for each in one["volumeMounts"]}
    assert mounts["/data"]["name"] == claim["metadata"]["name"]
    assert one["args"][-1].startswith("/data/")
    ports = {each["name"]: each["containerPort"] for each in one["ports"]}
    assert ports == {"data": PORTS[0], "control": PORTS[1], "health": HEALTH}
    assert {each["targetPort"]: each["port"] for each in service["ports"]} == {"data": PORTS[0], "control": PORTS[1]}
    assert stateful["selector"]["matchLabels"] == service["selector"] == stateful["template"]["metadata"]["labels"]
    probes = {name: one[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert all(probe["port"] == "health" for probe in probes.values())
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]
    volumes = {each["name"] for each in stateful["template"]["spec"]["volumes"]} | {claim["metadata"]["name"]}
    assert {each["name"] for each in one["volumeMounts"]} <= volumes
    security = config().security
    for path in (security.secret_key_file, security.clients_file):
        assert path is not None
        assert mounts[str(path.parent)]["readOnly"] is True
