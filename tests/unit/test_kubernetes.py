"""deploy/kubernetes: valid by the schemas of the versions named, and true to the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ari_app.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
DOCUMENTS: list[dict[str, Any]] = [
    document
    for file in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]
GIVING_BACK_SECONDS = 22


def of_kind(kind: str) -> dict[str, Any]:
    [found] = [each for each in DOCUMENTS if each["kind"] == kind]
    return found


POD: dict[str, Any] = of_kind("StatefulSet")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
SETTINGS: dict[str, str] = of_kind("ConfigMap")["data"]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_valid(version: str) -> None:
    for document in DOCUMENTS:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_mistake_is_found() -> None:
    broken = {**of_kind("PodDisruptionBudget"), "spec": {"maxUnavailble": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_its_settings_are_ours() -> None:
    known = {name.upper() for name in Settings.model_fields}
    named = {each["name"] for each in CONTAINER["env"]} - {"POD_IP"}
    assert (set(SETTINGS) | named) <= known


def test_calls_may_end_before_a_pod_does() -> None:
    grace = POD["terminationGracePeriodSeconds"]
    stop = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace >= stop + float(SETTINGS["DRAIN_TIMEOUT_SECONDS"]) + GIVING_BACK_SECONDS


def test_a_pod_has_no_rights() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_ports_are_those_of_the_settings() -> None:
    def port_of(name: str) -> int:
        return int(SETTINGS[name].rpartition(":")[2])

    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert ports == {
        "http": port_of("API_BIND"),
        "machines": port_of("CLUSTER_BIND"),
        "audiosocket": port_of("AUDIOSOCKET_BIND"),
    }
    allowed = {
        (each["port"], each.get("endPort", each["port"]))
        for rule in of_kind("NetworkPolicy")["spec"]["ingress"]
        for each in rule["ports"]
    }
    first = ports["audiosocket"]
    assert allowed == {
        (ports["http"], ports["http"]),
        (ports["machines"], ports["machines"]),
        (first, first + int(SETTINGS["WORKERS"]) - 1),
    }
