"""The stand-in for the Main API, over HTTP: the real one's answers, and faults when asked for."""

import io
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import make_server

import pytest
import requests
from pypdf import PdfReader

from deeds.sandbox.app import SandboxApp
from deeds.sandbox.drawing import MARK
from deeds.sandbox.facts import PATHS
from deeds.sandbox.faults import Countdown
from tests.conftest import _Quiet, _Server

FACTS = {
    "apn": "8381-021-001",
    "county": "Los Angeles",
    "legal_description": "LOT 1 OF TRACT NO. 6654",
    "grantors_text": "ALICE SMITH; CAROL O'HARA",
    "grantees_text": "BOB JONES",
    "vesting": "a single man",
    "title_order_no": "T-1",
    "execution_date": "2026-11-24",
    "dtt": {"amount": "825.00", "basis": "full_value", "area_type": "city", "city_name": "La Verne"},
    "covenants": "FREE OF LIENS",
    "tax_sale_ref": "2026-A 17",
}


class Sandbox:
    def __init__(self, url: str, pauses: list[float]) -> None:
        self.url = url
        self.pauses = pauses

    def post(self, path: str, body: Any = None, token: str | None = "token", **headers: str) -> Any:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        return requests.post(f"{self.url}{path}", json=body, headers=given, timeout=10)

    def grant(self, body: Any = None, **headers: str) -> Any:
        return self.post("/api/generate/grant-deed-ca", FACTS if body is None else body, **headers)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    pauses: list[float] = []
    app = SandboxApp("token", render_seconds=0.0, pause=pauses.append)
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Sandbox(f"http://127.0.0.1:{server.server_port}", pauses)
        server.shutdown()
        thread.join()


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/pdf"
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(answer.content)).pages)


@pytest.mark.parametrize("path", PATHS)
def test_every_type_shows_its_facts(sandbox: Sandbox, path: str) -> None:
    answer = sandbox.post(path, FACTS, X_Request_ID="abc")
    assert answer.headers["X-Request-ID"] == "abc"
    assert float(answer.headers["X-Generation-Time"]) < 5
    text = text_of(answer)
    for fact in ("8381-021-001", "Los Angeles", "LOT 1 OF TRACT NO. 6654", "BOB JONES", "T-1", "2026-11-24"):
        assert fact in text
    assert PATHS[path] in text
    assert MARK in text


def test_each_grantor_has_a_line_to_sign(sandbox: Sandbox) -> None:
    lines = text_of(sandbox.grant()).splitlines()
    assert lines.count("ALICE SMITH") == 1
    assert lines.count("CAROL O'HARA") == 1


def test_a_long_legal_description_is_an_exhibit(sandbox: Sandbox) -> None:
    long = "LOT 1 OF TRACT NO. 6654 " * 30
    pages = PdfReader(io.BytesIO(sandbox.grant(FACTS | {"legal_description": long}).content)).pages
    assert "EXHIBIT A, attached hereto" in " ".join(pages[0].extract_text().split())
    assert any(
        page.extract_text().strip().splitlines()[-1] and "EXHIBIT A\n" in page.extract_text()
        for page in pages[1:]
    )
    assert all(MARK in page.extract_text() for page in pages)


@pytest.mark.parametrize("name", ["JOSÉ NÚÑEZ", "<b>&amp; SONS", "王小明", "Иван", "X" * 3000, "😀"])
def test_any_name_can_be_drawn(sandbox: Sandbox, name: str) -> None:
    assert sandbox.grant(FACTS | {"grantors_text": name}).status_code == 200


def test_the_same_order_gives_the_same_bytes(sandbox: Sandbox) -> None:
    assert sandbox.grant().content == sandbox.grant().content


def test_a_grant_deed_says_all_that_it_lacks(sandbox: Sandbox) -> None:
    answer = sandbox.grant({})
    assert answer.status_code == 400
    assert answer.json() == {
        "detail": "Validation failed: Grantor information is required; Grantee information is required; "
        "Legal description is required; County is required; APN (Assessor's Parcel Number) is recommended"
    }


@pytest.mark.parametrize("path", [path for path, title in PATHS.items() if title != "GRANT DEED"])
def test_the_others_are_blank_and_called_a_success(sandbox: Sandbox, path: str) -> None:
    assert "______" in text_of(sandbox.post(path, {}))


@pytest.mark.parametrize(
    ("dtt", "reason"),
    [({"is_exempt": True}, "amount is required"), ({"amount": "1", "area_type": "city"}, "City name")],
)
def test_a_tax_that_lacks_a_part_is_refused(sandbox: Sandbox, dtt: Any, reason: str) -> None:
    answer = sandbox.grant(FACTS | {"dtt": dtt})
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"execution_date": "24.11.2026"}, "execution_date"),
        ({"execution_date": "2026-02-30"}, "execution_date"),
        ({"apn": 5}, "apn"),
        ({"dtt": "x"}, "dtt"),
        ({"transfer_value": "750000"}, "transfer_value"),
    ],
)
def test_a_wrong_type_is_a_422_with_its_place(sandbox: Sandbox, changes: Any, field: str) -> None:
    answer = sandbox.grant(FACTS | changes)
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["body", field]
    assert detail["msg"]
    assert detail["type"]


def test_credentials_are_asked_for_and_checked(sandbox: Sandbox) -> None:
    for token, detail in ((None, "Not authenticated"), ("other", "Could not validate credentials")):
        answer = sandbox.post("/api/generate/grant-deed-ca", FACTS, token=token)
        assert (answer.status_code, answer.json()) == (401, {"detail": detail})


def test_a_path_made_by_a_template_is_not_found(sandbox: Sandbox) -> None:
    answer = sandbox.post("/api/generate/interspousal-deed-ca", FACTS)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_other_methods_are_refused(sandbox: Sandbox) -> None:
    answer = requests.get(f"{sandbox.url}/api/generate/grant-deed-ca", timeout=5)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_body_that_is_no_json_is_a_422(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/api/generate/grant-deed-ca"
    answer = requests.post(url, data=b"{", headers={"Authorization": "Bearer token"}, timeout=5)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "json_invalid")


def statuses(sandbox: Sandbox, order_id: str, times: int) -> list[int]:
    return [sandbox.grant(X_Order_ID=order_id, X_Deed_ID="1").status_code for _ in range(times)]


def test_faults_by_number_end_and_begin_again(sandbox: Sandbox) -> None:
    assert statuses(sandbox, "sandbox-503-2", 6) == [503, 503, 200, 503, 503, 200]
    assert statuses(sandbox, "sandbox-429-1", 2) == [429, 200]
    assert statuses(sandbox, "sandbox-503-1-more", 2) == [503, 200]


def test_a_429_says_when_to_come_back(sandbox: Sandbox) -> None:
    assert sandbox.grant(X_Order_ID="sandbox-429-1", X_Deed_ID="2").headers["Retry-After"] == "1"


def test_each_deed_is_counted_by_itself(sandbox: Sandbox) -> None:
    given = [sandbox.grant(X_Order_ID="sandbox-503-1", X_Deed_ID=deed).status_code for deed in "xyx"]
    assert given == [503, 503, 200]


def test_a_success_that_is_none(sandbox: Sandbox) -> None:
    html = sandbox.grant(X_Order_ID="sandbox-html")
    assert (html.status_code, html.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    cut = sandbox.grant(X_Order_ID="sandbox-truncated").content
    assert cut.startswith(b"%PDF-")
    assert b"%%EOF" not in cut


def test_faults_that_take_time(sandbox: Sandbox) -> None:
    sandbox.pauses.clear()
    assert sandbox.grant(X_Order_ID="sandbox-slow-5").status_code == 200
    assert sandbox.grant(X_Order_ID="sandbox-slow-9000").status_code == 200
    assert sandbox.grant(X_Order_ID="sandbox-timeout").status_code == 200
    assert sandbox.pauses == [5, 30, 120.0]


def test_without_the_header_a_number_of_the_deed_will_do(sandbox: Sandbox) -> None:
    assert sandbox.grant(FACTS | {"escrow_no": "sandbox-400"}).status_code == 400


def test_only_a_bounded_number_of_deeds_is_remembered() -> None:
    countdown = Countdown()
    for number in range(10_500):
        countdown.is_due((str(number), ""), 2)
    assert len(countdown._left) == 10_000
