"""Prometheus finds every process and knows what the alerts ask for; what fires reaches somebody."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.ops.deployed import KUBERNETES, PROMETHEUS, compose_text, config_map, objects, pods, services

SCRAPED = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
ALERTING = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
JOBS = {one["job_name"]: one for one in SCRAPED["scrape_configs"]}


def targets(job: str) -> set[str]:
    return {target for one in JOBS[job]["static_configs"] for target in one["targets"]}


def monitors() -> list[Any]:
    return list(yaml.safe_load_all((KUBERNETES / "monitoring" / "monitors.yaml").read_text()))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_how_prometheus_is_set_up() -> None:
    command = ["promtool", "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_process_that_has_metrics_is_scraped() -> None:
    found = services()
    with_port = {
        f"{name}:{service['environment']['WORKER_METRICS_PORT']}"
        for name, service in found.items()
        if "WORKER_METRICS_PORT" in service.get("environment", {})
    }
    assert targets("partner-api-web") == {"web:8000"}
    assert targets("partner-api-worker") == with_port
    for job in ("partner-api-web", "partner-api-worker"):
        assert JOBS[job]["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert "metrics_token" in found["prometheus"]["secrets"]


def test_disks_and_certificates_are_looked_at() -> None:
    """DiskFilling and CertificateExpires would else be silent for want of data."""
    found = services()
    [node] = targets("node")
    assert node.partition(":")[0] in found
    assert any(one["target"] == "/host" for one in found["node-exporter"]["volumes"])
    [file] = [name for one in JOBS["public"]["file_sd_configs"] for name in one["files"]]
    [given] = found["prometheus"]["configs"]
    assert file == given["target"]
    content = yaml.safe_load(compose_text())["configs"][given["source"]]["content"]
    assert [one["targets"] for one in json.loads(content)] == [["x/healthz"]]
    prober = JOBS["public"]["relabel_configs"][-1]["replacement"]
    assert prober.partition(":")[0] in found


def test_what_fires_reaches_somebody() -> None:
    found = services()
    [told] = [
        target
        for one in SCRAPED["alerting"]["alertmanagers"]
        for config in one["static_configs"]
        for target in config["targets"]
    ]
    assert told.partition(":")[0] in found
    receivers = {one["name"]: one for one in ALERTING["receivers"]}
    routes = {match: one["receiver"] for one in ALERTING["route"]["routes"] for match in one["matchers"]}
    assert routes == {'severity="page"': "page"}
    assert ALERTING["route"]["receiver"] == "ticket"
    assert receivers.keys() == {"page", "ticket"}
    for receiver in receivers.values():
        [files] = [
            set(re.findall(r"/run/secrets/(\w+)", json.dumps(config)))
            for kind, config in receiver.items()
            if kind.endswith("_configs")
        ]
        assert files
        assert files <= set(found["alertmanager"]["secrets"])


def test_no_alert_waits_for_one_that_does_not_exist() -> None:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    matched = re.findall(r'alertname=\\"(\w+)\\"', json.dumps(ALERTING["inhibit_rules"]))
    assert matched
    assert set(matched) <= names


def test_the_runbooks_address_is_told_once() -> None:
    name = re.fullmatch(r"\$\{(\w+)\}", SCRAPED["global"]["external_labels"]["runbook"])
    assert name is not None
    assert name[1] in services()["prometheus"]["environment"]


def test_kubernetes_pods_are_scraped_by_their_token_under_the_names_that_alerts_know() -> None:
    ports = {
        part: {port["name"] for container in pod["containers"] for port in container.get("ports", [])}
        for part, pod in pods().items()
    }
    found = {}
    for one in monitors():
        if one["kind"] != "PodMonitor":
            continue
        [endpoint] = one["spec"]["podMetricsEndpoints"]
        [job] = [rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"]
        assert endpoint["authorization"]["credentials"] == {"name": "partner-api", "key": "METRICS_TOKEN"}
        selector = one["spec"]["selector"]
        listed = [expression["values"] for expression in selector.get("matchExpressions", [])]
        for part in listed[0] if listed else [selector["matchLabels"]["part"]]:
            assert endpoint["port"] in ports[part]
            found[part] = job
    assert found == {
        "web": "partner-api-web",
        "worker": "partner-api-worker",
        "worker-upkeep": "partner-api-worker",
        "worker-webhooks": "partner-api-worker",
    }
    [probe] = [one for one in monitors() if one["kind"] == "Probe"]
    assert probe["spec"]["targets"]["staticConfig"]["static"] == [
        f"{config_map()['PUBLIC_BASE_URL']}/healthz"
    ]


def test_prometheus_is_let_in() -> None:
    let_in = {
        (part, port["port"])
        for one in objects()
        if one["kind"] == "NetworkPolicy"
        for rule in one["spec"].get("ingress", [])
        if any("monitoring" in json.dumps(peer) for peer in rule["from"])
        for selector in [one["spec"]["podSelector"]]
        for part in [
            selector.get("matchLabels", {}).get("part"),
            *[value for listed in selector.get("matchExpressions", []) for value in listed["values"]],
        ]
        for port in rule["ports"]
        if part
    }
    workers = {(name, 9100) for name in ("worker", "worker-upkeep", "worker-webhooks")}
    assert let_in == {("web", 8000), *workers}
