"""Alerts and dashboards speak of metrics that exist, and of sections of the runbook that are there."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from django.db import connection
from prometheus_client.parser import text_string_to_metric_families

from tests.ops.deployed import PROMETHEUS, ROOT, objects

BOARDS = ("service", "orders", "billing")
# Of Prometheus itself and of the exporters for machines and addresses.
OTHERS = {"up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "probe_ssl_earliest_cert_expiry"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def documented() -> set[str]:
    """The series of every documented metric; another test holds that list to the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    names = set()
    for name, kind in rows:
        names |= {f"{name}{end}" for end in ("_bucket", "_count", "_sum")} if kind == "histogram" else {name}
    return names


def gauges() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `(\w+)` \| gauge \|", page, re.MULTILINE))


def queries(board: str) -> list[str]:
    panels = json.loads((ROOT / "deploy" / "grafana" / f"{board}.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def metrics_in(expression: str) -> set[str]:
    plain = re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression)
    return set(re.findall(r"\b(?:partner_api|node|probe)_\w+|\bup\b", plain))


def test_every_alert_is_whole() -> None:
    sections = re.findall(r"^###? (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert len(alerts()) >= 20
    for alert in alerts():
        name = alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}, name
        assert alert["annotations"]["summary"].endswith("."), name
        # Prometheus is told once where the runbook is read, and a phone can follow it.
        assert alert["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbook }}}}#{name.lower()}"
        assert name in sections, f"{name} has no section in the runbook"


def test_every_alert_fires_in_one_test_and_is_silent_in_another() -> None:
    tests = [
        test
        for file in (PROMETHEUS / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
    ]
    fires: set[str] = set()
    silent: set[str] = set()
    for test in tests:
        for rule in test["alert_rule_test"]:
            (fires if rule["exp_alerts"] else silent).add(rule["alertname"])
    names = {alert["alert"] for alert in alerts()}
    assert fires == names
    assert silent == names


def test_every_metric_of_an_alert_exists() -> None:
    known = documented() | OTHERS
    for alert in alerts():
        found = metrics_in(alert["expr"])
        assert found, alert["alert"]
        assert found <= known, f"{alert['alert']}: {found - known}"


# Labels that are many: an alert on the share of many answers is not blind for one of them. And a time, which
# would be 1970 before the first; its alert asks for its absence as well.
BEGIN_LATER = {
    "partner_api_requests_total",
    "partner_api_request_seconds_bucket",
    "partner_api_task_last_success_timestamp_seconds",
}


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of ours in an expression, with what it asks of labels."""
    found = re.findall(r"\b(partner_api_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', asked)) for name, asked in found]


def is_match(labels: dict[str, str], asked: list[tuple[str, str, str]]) -> bool:
    def fits(name: str, how: str, text: str) -> bool:
        value = labels.get(name, "")
        is_same = bool(re.fullmatch(text, value)) if "~" in how else value == text
        return is_same != how.startswith("!")

    return all(fits(*one) for one in asked)


def test_a_process_that_has_just_started_shows_each_series_of_an_alert(db: None) -> None:
    """The first event would otherwise be no increase."""
    code = (
        "import partner_api.wsgi, sys; from partner_api.ops import metrics; "
        "sys.stdout.write(metrics.exposition().decode())"
    )
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    env = {**os.environ, "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}"}
    page = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    begun = [one for family in text_string_to_metric_families(page) for one in family.samples]
    missing = [
        (alert["alert"], name, asked)
        for alert in alerts()
        for name, asked in selectors(alert["expr"])
        if name not in BEGIN_LATER
        and not any(one.name == name and is_match(one.labels, asked) for one in begun)
    ]
    assert missing == []


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_dashboard_is_of_metrics_that_exist(name: str) -> None:
    assert len(queries(name)) >= 9
    for query in queries(name):
        assert metrics_in(query), query
        assert metrics_in(query) <= documented(), f"{query}: {metrics_in(query) - documented()}"


def test_what_every_pod_says_alike_is_counted_once() -> None:
    """A gauge is a fact that each pod has looked up; the sum of twelve would be twelve times the fact."""
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/prometheus-adapter.yaml").read_text())
    [rule] = adapter["rules"]["external"]
    scaling = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"])
    asked = [alert["expr"] for alert in alerts()] + [one for name in BOARDS for one in queries(name)]
    for query in [*asked, scaling]:
        for name in metrics_in(query) & gauges():
            told = len(re.findall(rf"\b{name}\b", query))
            once = rf"(?:(?:max|min)(?: by \(\w+(?:, \w+)*\))? ?|absent)\({name}\b"
            assert told == len(re.findall(once, query)), query


def test_workers_scale_by_a_figure_that_is_served() -> None:
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/prometheus-adapter.yaml").read_text())
    scaler = next(
        one
        for one in objects()
        if one["kind"] == "HorizontalPodAutoscaler" and one["metadata"]["name"] == "worker"
    )
    [figure] = scaler["spec"]["metrics"]
    assert [rule["name"]["as"] for rule in adapter["rules"]["external"]] == [
        figure["external"]["metric"]["name"]
    ]


def test_dashboards_have_ids_of_their_own() -> None:
    boards = [json.loads(path.read_text()) for path in (ROOT / "deploy" / "grafana").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) == len(BOARDS)
    for board in boards:
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
