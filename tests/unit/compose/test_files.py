"""docker-compose.yml, the Dockerfiles and their locks, as far as they can be read."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.compose.options import Options

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PRODUCTION: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.prod.yml").read_text())
EVERY = [*SERVICES.items(), *PRODUCTION["services"].items()]
WATCHES = {"prometheus", "grafana"}
ENDS_BY_ITSELF = {"setup", "phone", "load"}


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_every_service_is_locked_down(name: str, service: dict[str, Any]) -> None:
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert service["logging"]["options"]["max-size"]
    assert service["pids_limit"] == 1024


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_what_is_built_is_built_from_this_checkout(name: str, service: dict[str, Any]) -> None:
    """After `git pull` old images with new configuration would be something nobody has tested."""
    if name in WATCHES:
        assert "build" not in service
        assert service["pull_policy"] == "missing"
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), "a pinned version"
    else:
        assert service["pull_policy"] == ("build" if "build" in service else "never")


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_every_service_that_stays_is_watched(name: str, service: dict[str, Any]) -> None:
    check = service["healthcheck"]
    assert ("test" in check) is (name not in ENDS_BY_ITSELF)
    assert check.get("disable", False) is (name in ENDS_BY_ITSELF)


def test_without_a_profile_it_is_the_lab() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert [name for name, found in profiles.items() if not found] == [
        *("setup", "asterisk", "practice-agent", "ari-app", "caller")
    ]
    assert {name: found for name, found in profiles.items() if found} == {
        "phone": ["phone"],
        "load": ["load"],
        "prometheus": ["watch"],
        "grafana": ["watch"],
    }


def test_production_has_nothing_of_the_lab() -> None:
    [production] = PRODUCTION["services"].values()
    assert "depends_on" not in production
    assert production["volumes"] == ["recordings:/recordings", "calls:/calls"]
    assert production["image"] == SERVICES["ari-app"]["image"]
    assert production["build"] == SERVICES["ari-app"]["build"]
    assert production["mem_limit"]


def test_nothing_that_is_done_to_the_lab_touches_production() -> None:
    """`docker compose down --volumes` ends and removes all that its project has."""
    assert PRODUCTION["name"] != COMPOSE["name"]
    assert PRODUCTION["volumes"].keys().isdisjoint(COMPOSE["volumes"])


@pytest.mark.parametrize("name", ["load", "phone"])
def test_a_call_by_hand_makes_nobody_anew(name: str) -> None:
    """`docker compose run` brings what a service depends on to what the environment says now."""
    assert "depends_on" not in SERVICES[name]


def test_the_practice_agent_reaches_the_service_alone() -> None:
    assert COMPOSE["networks"]["agent"] == {"internal": True}
    inside = {name for name, service in SERVICES.items() if "agent" in service.get("networks", [])}
    assert inside == {"practice-agent", "ari-app"}
    assert SERVICES["practice-agent"]["networks"] == ["agent"]


def test_ports_are_published_on_loopback_unless_said_otherwise() -> None:
    for name, service in SERVICES.items():
        address = "127.0.0.1:" if name in WATCHES else "${LAB_BIND:-127.0.0.1}:"
        assert all(str(port).startswith(address) for port in service.get("ports", []))


def test_who_watches_reads_what_is_there_and_grafana_sees_prometheus_alone() -> None:
    for name in WATCHES:
        for volume in SERVICES[name]["volumes"]:
            source, _, mode = volume.split(":")
            assert (ROOT / source).is_dir()
            assert mode == "ro"
    assert SERVICES["grafana"]["networks"] == ["watch"]
    inside = {name for name, service in SERVICES.items() if "watch" in service.get("networks", [])}
    assert inside == WATCHES


def test_only_setup_writes_secrets_and_nobody_else_sees_all_of_them() -> None:
    own = {"practice-agent": "agent", "ari-app": "service", "caller": "caller"}
    for name, service in SERVICES.items():
        kept = [
            volume
            for volume in service.get("volumes", [])
            if volume.split(":")[0] in {*COMPOSE["volumes"]} - {"asterisk", "heard", "lab-calls"}
        ]
        if name == "setup":
            assert len(kept) == 6
        elif name in {"asterisk", *WATCHES}:
            assert kept == []
        else:
            place = "/lab" if name in own else f"/{name}"
            assert kept == [f"{own.get(name, name)}:{place}:ro"]


def test_no_secret_is_in_the_environment_of_a_container_that_stays() -> None:
    told = {name: set(service.get("environment", {})) for name, service in SERVICES.items()}
    del told["setup"]
    assert not [name for names in told.values() for name in names if re.search("KEY|PASSW", name)]


def test_setup_is_told_every_option() -> None:
    assert set(SERVICES["setup"]["environment"]) == {n.upper() for n in Options.model_fields}
    told = SERVICES["setup"]["environment"]
    for name, field in Options.model_fields.items():
        default = re.fullmatch(r"\$\{\w+:-(.*)\}", told[name.upper()])
        assert default is not None
        assert default[1] == ("" if field.default is None else str(field.default))


def test_every_variable_is_described() -> None:
    files = [*ROOT.glob("docker-compose*.yml")]
    used = {name for path in files for name in re.findall(r"\$\{(\w+)", path.read_text())}
    described = set(re.findall(r"`(\w+)`", (ROOT / "docs/docker.md").read_text()))
    assert used - described == set()


@pytest.mark.parametrize("name", ["serve", "lab", "build"])
def test_the_images_hold_what_the_lock_holds(name: str) -> None:
    tested = stanzas(ROOT / "requirements.lock")
    shipped = stanzas(ROOT / f"deploy/{name}.lock")
    assert shipped
    assert {key: shipped[key] for key in shipped if shipped[key] != tested.get(key)} == {}


def test_production_packages_are_a_part_of_the_labs() -> None:
    serve, lab = stanzas(ROOT / "deploy/serve.lock"), stanzas(ROOT / "deploy/lab.lock")
    assert serve.items() <= lab.items()
    assert not any(key.startswith(("matplotlib==", "segno==")) for key in serve)


PRODUCT = {"ari_app", "audiosocket", "linekit"}


def test_production_packages_are_all_that_the_service_imports() -> None:
    files = [path for name in PRODUCT for path in (ROOT / name).rglob("*.py")]
    used = {name for path in files for name in imports(path)} - PRODUCT - sys.stdlib_module_names
    serve = {key.partition("==")[0] for key in stanzas(ROOT / "deploy/serve.lock")}
    distributions = packages_distributions()
    assert used
    assert {
        name
        for name in used
        if serve.isdisjoint(canonical(found) for found in distributions.get(name, [name]))
    } == set()


def imports(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
    return found


def canonical(distribution: str) -> str:
    """A distribution's name as locks have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def stanzas(lock: Path) -> dict[str, frozenset[str]]:
    """Each requirement of a lock file with its hashes; without what it depends on."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in lock.read_text().splitlines():
        text = line.rstrip(" \\").strip()
        if text.startswith("--hash="):
            found[name].add(text)
        elif text:
            name = text.partition(";")[0].strip()
            found[name] = set()
    return {name: frozenset(hashes) for name, hashes in found.items()}


def test_dockerfiles_take_their_bases_from_outside_and_name_no_mirror() -> None:
    files = [*ROOT.glob("deploy/**/Dockerfile"), *ROOT.glob("deploy/*.Dockerfile")]
    assert len(files) == 4
    for path in files:
        text = path.read_text()
        assert "://" not in text
        assert re.search(r"^ARG (STABLE|TESTING)_IMAGE=debian:(trixie|forky)-slim$", text, re.M)
        assert re.search(r"^USER 10001:10001$", text, re.M)
        assert "org.opencontainers.image.licenses" in text


def test_no_secret_gets_into_a_build() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert ".env" not in allowed
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy/ari-app.Dockerfile").read_text(), re.M
    )
    sources = {source for line in copied for source in line.split()}
    assert {s for s in sources if s not in allowed and not s.endswith(".lock")} == set()
