"""What Prometheus reads: who may, what is there, and that nothing hides the rest."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connection, connections
from django.test import Client
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import ConnectionError as RedisConnectionError

from deeds import circuit, tasks
from deeds.main_api import MainApiError, renderer_for
from keys.models import Partner
from partner_api.local.ports import free_port
from partner_api.ops import metrics
from tests.api import Api
from tests.e2e.conftest import Deployment

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def open_to_us(settings: Any) -> None:
    settings.METRICS_TOKEN = "scrape-token"
    settings.METRICS_CACHE_SECONDS = 0.0


def scrape(client: Client) -> dict[str, list[Any]]:
    answer = client.get("/metrics", headers={"Authorization": "Bearer scrape-token"})
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.content.decode())
    return {family.name: family.samples for family in families}


def value(samples: list[Any], **labels: str) -> float:
    return float(sum(s.value for s in samples if labels.items() <= s.labels.items()))


def test_it_works(client: Client, api: Api, order: Any, main_api: Any) -> None:
    before = scrape(client)
    api.post("/v2/deeds", order())
    deed = api.partner.deeds.get()
    tasks.serve(str(deed.pk))
    after = scrape(client)

    def grown(family: str, sample: str = "", **labels: str) -> float:
        def total(page: dict[str, list[Any]]) -> float:
            wanted = [s for s in page.get(family, []) if s.name == (sample or f"{family}_total")]
            return value(wanted, **labels)

        return total(after) - total(before)

    route = {"route": "v2/deeds", "status": "202", "partner_class": "live", "method": "POST"}
    assert grown("partner_api_requests", **route) == 1
    assert grown("partner_api_deeds_settled", status="completed", deed_type="grant", mode="live") == 1
    assert grown("partner_api_main_api_calls", renderer="main_api", outcome="ok") == 1
    assert grown("partner_api_deed_seconds", "partner_api_deed_seconds_count") == 1


@pytest.mark.parametrize(
    ("headers", "settings_of"),
    [
        ({}, {}),
        ({"Authorization": "Bearer wrong"}, {}),
        ({"Authorization": "Bearer "}, {"METRICS_TOKEN": ""}),
        ({"Authorization": "Basic scrape-token"}, {}),
        ({"Authorization": "Bearer schlüssel"}, {}),
    ],
)
def test_a_stranger_finds_no_page(
    client: Client, settings: Any, headers: dict[str, str], settings_of: dict[str, str]
) -> None:
    for name, to in settings_of.items():
        setattr(settings, name, to)
    answer = client.get("/metrics", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert b"partner_api_" not in answer.content


def test_a_named_network_may_read_and_a_forged_header_is_no_network(client: Client, settings: Any) -> None:
    import ipaddress

    settings.METRICS_ALLOWED_CIDRS = [ipaddress.ip_network("127.0.0.0/8")]
    with_header = {"X-Forwarded-For": "127.0.0.1"}
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="203.0.113.9", headers=with_header).status_code == 404
    # Behind a proxy of ours, its own address says nothing of who calls.
    settings.TRUSTED_PROXY_HOPS = 1
    stranger = {"X-Forwarded-For": "203.0.113.9"}
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", headers=stranger).status_code == 404


def test_the_age_of_the_oldest_order_is_looked_up(client: Client, api: Api, order: Any) -> None:
    api.post("/v2/deeds", order())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE external_deeds SET created_at = now() - interval '1 hour',"
            " next_attempt_at = now() - interval '10 minutes'"
        )
    page = scrape(client)
    assert 3595 < page["partner_api_oldest_queued_order_age_seconds"][0].value < 3700
    assert 595 < page["partner_api_oldest_due_deed_age_seconds"][0].value < 700
    assert value(page["partner_api_deeds_under_way"], status="queued") == 1


def test_a_circuit_that_opened_shows_without_anybody_asking_whether_we_are_ready(
    client: Client, db: None, settings: Any, monkeypatch: Any
) -> None:
    def shown() -> dict[str, float]:
        samples = scrape(client).get("partner_api_circuit_open", [])
        return {sample.labels["renderer"]: sample.value for sample in samples}

    assert shown() == {"main_api": 0, "sandbox": 0}
    outage = MainApiError("main_api_unavailable", "status 503", is_temporary=True, is_outage=True)
    for _ in range(settings.CIRCUIT_FAILURES):
        circuit.failed(renderer_for(livemode=True), outage, is_probe=False)
    assert shown() == {"main_api": 1, "sandbox": 0}
    circuit.succeeded(renderer_for(livemode=True))
    assert shown() == {"main_api": 0, "sandbox": 0}

    def away(name: str) -> None:
        raise RedisConnectionError

    monkeypatch.setattr(circuit, "get_redis_connection", away)
    assert shown() == {}, "what nobody knows is not shown as closed"


def test_a_look_that_fails_hides_nothing_else(client: Client, db: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(metrics, "_collectors", dict(metrics._collectors))

    def broken() -> Iterator[Metric]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        yield GaugeMetricFamily("partner_api_never", "Never.")

    def slow() -> Iterator[Metric]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(20)")
        yield GaugeMetricFamily("partner_api_late", "Late.")

    metrics.register_collector(broken)
    metrics.register_collector(slow)
    page = scrape(client)
    up = {s.labels["collector"].rpartition(".")[2]: s.value for s in page["partner_api_collector_up"]}
    assert (up["broken"], up["slow"], up["backlog"], up["queue_lengths"]) == (0, 0, 1, 1)
    assert "partner_api_late" not in page
    assert "partner_api_oldest_due_deed_age_seconds" in page


def test_a_look_is_remembered_for_a_while(client: Client, db: None, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(metrics, "_collectors", {})
    settings.METRICS_CACHE_SECONDS = 60.0
    looks = []

    def count() -> Iterator[Metric]:
        looks.append(1)
        yield GaugeMetricFamily("partner_api_looks", "Looks.", value=len(looks))

    metrics.register_collector(count)
    assert [scrape(client)["partner_api_looks"][0].value for _ in range(3)] == [1, 1, 1]


def test_quotes_and_newlines_in_a_label_are_escaped(client: Client, db: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(metrics, "_collectors", {})
    odd = 'Acme "Title"\\ \n} 1'

    def named() -> Iterator[Metric]:
        family = GaugeMetricFamily("partner_api_named", "Named.", labels=["partner"])
        family.add_metric([odd], 1.0)
        yield family

    metrics.register_collector(named)
    assert scrape(client)["partner_api_named"][0].labels == {"partner": odd}


def test_a_file_that_a_process_has_only_just_made_hides_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "counter_1.db").touch()
    assert metrics.counted() == b""


def test_a_file_that_is_gone_when_it_is_looked_at_hides_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    # Found in the folder, and not there: as a process's that ended in between.
    (tmp_path / "gauge_livemax_1.db").symlink_to(tmp_path / "nowhere")
    assert metrics.counted() == b""


def test_looks_need_no_place_in_the_pool(transactional_db: None, client: Client, monkeypatch: Any) -> None:
    """Where all are taken, each look would wait for one as long as a request may."""
    monkeypatch.setattr(metrics, "_collectors", dict(metrics._collectors))
    seen: list[bool] = []

    def look() -> Iterator[Metric]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(getattr(connection, "pool", "none of its own") is None)
        yield GaugeMetricFamily("partner_api_seen", "Seen.", value=1)

    metrics.register_collector(look)
    usual = connections["default"]
    assert getattr(usual, "pool", None) is not None
    assert scrape(client)["partner_api_seen"][0].value == 1
    assert seen == [True]
    assert connections["default"] is usual


def test_a_path_makes_no_label(client: Client, db: None) -> None:
    for number in range(20):
        client.get(f"/no-such-page-{number}")
        client.generic(f"ODD{number}", "/healthz")
    labels = [s.labels for s in scrape(client)["partner_api_requests"]]
    assert not any("no-such-page" in label["route"] for label in labels)
    methods = {label["method"] for label in labels}
    assert "other" in methods
    assert not any(method.startswith("ODD") for method in methods)


def _names() -> set[str]:
    from prometheus_client import REGISTRY

    families = [*REGISTRY.collect(), *(f for c in metrics._collectors.values() for f in c.function())]
    names = set()
    for family in families:
        if family.name.startswith("partner_api_"):
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names | {"partner_api_collector_up"}


def test_every_metric_is_documented_and_every_documented_one_exists(db: None) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(partner_api_\w+)`", text, re.MULTILINE)) == _names()


def test_several_processes_add_up_and_workers_may_come_and_go(
    deployment: Deployment, acme: Partner, order: Any
) -> None:
    """Real gunicorn and Celery processes share a folder; one is killed while Prometheus reads."""
    folder = deployment.folder / "metrics"
    folder.mkdir()
    port = free_port()
    deployment.env |= {
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "METRICS_ALLOWED_CIDRS": "127.0.0.0/8",
        "WORKER_METRICS_PORT": str(port),
        "WORKER_MAX_TASKS_PER_CHILD": "2",
        "WORKER_CONCURRENCY": "1",
        "METRICS_CACHE_SECONDS": "0",
    }
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_web(WEB_WORKERS="2")
    api = Api.of(acme)
    pages: list[int] = []
    done = threading.Event()

    def keep_scraping() -> None:
        while not done.is_set():
            pages.append(requests.get(f"{deployment.url}/metrics", timeout=5).status_code)
            pages.append(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code)

    scraper = threading.Thread(target=keep_scraping)
    scraper.start()
    try:
        for number in range(8):
            answer = requests.post(
                f"{deployment.url}/v2/deeds",
                json=order() | {"order_id": f"M-{number}"},
                headers={"Authorization": f"Bearer {api.text}", "Prefer": "wait=20"},
                timeout=30,
            )
            assert answer.status_code == 201
    finally:
        done.set()
        scraper.join()
    assert set(pages) == {200}
    page = {
        family.name: family.samples
        for family in text_string_to_metric_families(
            requests.get(f"{deployment.url}/metrics", timeout=5).text
        )
    }
    posts = [s for s in page["partner_api_requests"] if s.name.endswith("_total")]
    assert value(posts, route="v2/deeds", status="201") == 8
    # The worker's children were replaced every two tasks; what they counted is there, in one set of files.
    tasks_done = [s for s in page["partner_api_tasks"] if s.name.endswith("_total")]
    assert value(tasks_done, outcome="success") >= 8
    settled = [s for s in page["partner_api_deeds_settled"] if s.name.endswith("_total")]
    assert value(settled, status="completed") == 8
    assert len(list(folder.glob("counter_*-0.db"))) == 1
