"""A trace from the web through Celery to the Main API and the storage, as a collector receives it."""

import gzip
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from keys.models import Partner
from tests.api import Api
from tests.e2e.conftest import Deployment
from tests.log_wall import leaks


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP collector on real HTTP, and the spans that reached it."""
    spans: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        start_response("200 OK", [("Content-Type", "application/x-protobuf")])
        return [b""]

    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        finally:
            server.shutdown()
            thread.join()


def test_one_trace_leads_from_the_order_to_the_storage(
    deployment: Deployment, acme: Partner, order: Any, collector: tuple[str, list[Any]]
) -> None:
    endpoint, spans = collector
    deployment.env |= {
        "TRACING_ENDPOINT": endpoint,
        "TRACING_SAMPLE_RATE": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_web(WEB_WORKERS="1")
    headers = {"Authorization": f"Bearer {Api.of(acme).text}", "X-Request-ID": "trace-1", "Prefer": "wait=20"}
    answer = requests.post(f"{deployment.url}/v2/deeds", json=order(), headers=headers, timeout=30)
    assert answer.status_code == 201
    requests.get(answer.json()["pdf"]["url"], timeout=5)

    def by_trace() -> dict[bytes, set[str]]:
        found: dict[bytes, set[str]] = {}
        for one in list(spans):
            found.setdefault(one.trace_id, set()).add(one.name)
        return found

    wanted = {"POST v2/deeds", "run/deeds.tasks.serve", "POST", "storage.store"}
    deployment.children[0].wait_until(
        lambda: any(wanted <= names for names in by_trace().values()), seconds=15
    )
    trace = next(trace for trace, names in by_trace().items() if wanted <= names)
    with_id = {
        one.name
        for one in spans
        if one.trace_id == trace
        and any(a.key == "request_id" and a.value.string_value == "trace-1" for a in one.attributes)
    }
    assert {"POST v2/deeds", "POST", "storage.store"} <= with_id
    assert leaks(str(spans)) == []
    assert "signature=" not in str(spans)
