"""Logs of real processes: JSON lines that can be joined, and nothing in them that no log may show."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import structlog

from deeds.models import Deed
from keys.models import Partner
from partner_api.ops.logging import logging_config
from partner_api.ops.redaction import redact
from tests.api import Api
from tests.e2e.conftest import Deployment
from tests.log_wall import leaks, people

ROOT = Path(__file__).parent.parent.parent
KEY = "dp_live_AbCd1234_" + "s" * 43 + "123456"


def lines_of(deployment: Deployment, name: str) -> list[dict[str, Any]]:
    lines = (deployment.folder / f"{name}.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_an_order_can_be_followed_through_all_processes(
    deployment: Deployment, acme: Partner, order: Any
) -> None:
    # A worker of root's says so in plain text before it has a log; in the image it is not root's.
    deployment.env |= {"SWEEP_SECONDS": "1", "PYTHONWARNINGS": "ignore:You're running the worker"}
    deployment.start_sandbox()
    deployment.start_worker()
    deployment.start_beat()
    deployment.start_web()
    api = Api.of(acme)
    headers = {"Authorization": f"Bearer {api.text}", "X-Request-ID": "follow-me-1", "Prefer": "wait=20"}
    body = order() | {"order_id": "LOGS-1"}
    answer = requests.post(f"{deployment.url}/v2/deeds", json=body, headers=headers, timeout=30)
    assert answer.status_code == 201
    link = answer.json()["pdf"]["url"]
    assert requests.get(link, timeout=5).status_code == 200
    # What is wrong is where logs like to quote: bad keys, bad bodies, bad links, a renderer that refuses.
    for path, bad in (("/v2/deeds", b'{"property": "ALICE'), ("/v2/deeds", json.dumps({"apn": 1}).encode())):
        requests.post(f"{deployment.url}{path}", data=bad, headers=headers, timeout=5)
    requests.get(f"{deployment.url}/v2/deeds?api_key={api.text}", timeout=5)
    requests.get(f"{deployment.url}/v2/deeds", headers={"X-API-Key": api.text[:-1]}, timeout=5)
    requests.get(f"{link}x", timeout=5)
    refused = body | {"order_id": "sandbox-400"}
    requests.post(f"{deployment.url}/v2/deeds", json=refused, headers=headers, timeout=30)
    partner = str(acme.pk)
    for name, event in (("web", "request"), ("worker", "deed_completed"), ("sandbox", "sandbox_request")):
        found = [
            line
            for line in lines_of(deployment, name)
            if line["event"] == event and line.get("request_id") == "follow-me-1"
        ]
        assert found, name
        assert all("timestamp" in line for line in found)
        if name == "sandbox":
            assert found[0]["deed"] == answer.json()["id"]
        assert found[0]["partner"] == partner
    access = next(line for line in lines_of(deployment, "web") if line.get("request_id") == "follow-me-1")
    assert (access["route"], access["status"]) == ("v2/deeds", 201)
    assert access["latency_ms"] > 0
    assert lines_of(deployment, "beat")
    tokens = [api.text, api.text.rpartition("_")[2], "ALICE", link.rpartition("=")[2]]
    for name in ("web", "worker", "beat", "sandbox"):
        text = (deployment.folder / f"{name}.log").read_text()
        assert leaks(text, also=tokens) == [], name


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"key {KEY} used", "key dp_live_AbCd1234[redacted] used"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer [redacted]"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw!", "whsec_[redacted]!"),
        ("sk_live_1234567890", "sk_live_[redacted]"),
        ("redis://:secret@redis:6379/0", "redis://:[redacted]@redis:6379/0"),
        (
            "GET /files/x.pdf?expires=1&signature=abc:def HTTP",
            "GET /files/x.pdf?expires=1&signature=[redacted] HTTP",
        ),
        ("DETAIL:  Failing row contains (ALICE SMITH).\\nCONTEXT: x", "DETAIL:  [redacted]\\nCONTEXT: x"),
        ("input_value='ALICE', input_type=str", "input_value=[redacted], input_type=str"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_", "eyJ[redacted]"),  # pragma: allowlist secret
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_the_last_wall_takes_out_what_has_a_form(text: str, left: str) -> None:
    assert redact(text) == left
    assert redact(left) == left


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_that_quotes_a_key_is_cleaned(log_format: str, capsys: Any) -> None:
    code = (
        "import logging.config, structlog\n"
        "from partner_api.ops.logging import logging_config\n"
        f"logging.config.dictConfig(logging_config(level='INFO', log_format={log_format!r}))\n"
        "try:\n"
        f"    raise ValueError('{KEY}')\n"
        "except ValueError:\n"
        "    structlog.get_logger('x').exception('broke', header='Bearer abcdefghijkl')\n"
        "    logging.getLogger('y').exception('broke %s', 'sk_live_1234567890')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stderr.count("dp_live_AbCd1234[redacted]") >= 2
    assert leaks(ended.stderr) == []
    assert "abcdefghijkl" not in ended.stderr


SECRETS = (
    "sk_live_1234567890",  # pragma: allowlist secret
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_",  # pragma: allowlist secret
    "Bearer abcdefghijkl",
)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("before", ["\n", "\t", "\r"])
def test_a_secret_at_the_beginning_of_a_line_is_cleaned(log_format: str, before: str) -> None:
    """As Postgres quotes rows, in a message and in a traceback; in JSON the line's end is no white space."""
    row = "DETAIL:  Failing row contains (ALICE SMITH, 8381-021-001)."
    text = "it failed" + "".join(f"{before}{part}" for part in (*SECRETS, row)) + "\nCONTEXT:  kept"
    config = logging_config(level="INFO", log_format=log_format)
    formatter = config["formatters"]["lines"]
    lines = structlog.stdlib.ProcessorFormatter(
        **{name: formatter[name] for name in formatter if name != "()"}
    )
    error = ValueError(text)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, text, None, (ValueError, error, None))
    line = lines.format(record)
    assert line.count("DETAIL:  [redacted]") >= 2
    for hidden in (*SECRETS, "abcdefghijkl", "ALICE", "8381-021-001"):
        assert hidden not in line
    assert "kept" in line
    assert leaks(line) == []


def test_the_checker_finds_what_it_is_for() -> None:
    name = next(iter(sorted(people())))
    escaped = "x\\nwhsec_12345678"
    for line in (
        KEY,
        "Bearer abcdefghijklmnopqrst",
        "whsec_12345678",
        escaped,
        "x?signature=abcdefghi",
        name,
    ):
        assert leaks(f"fine\n{line}\nfine") == [line]
    assert leaks("fine dp_live_AbCd1234 fine") == []


def test_a_disk_that_is_full_ends_nothing(deployment: Deployment, acme: Partner, order: Any) -> None:
    """All that web and worker write fails with ENOSPC; requests are answered and deeds are made."""
    deployment.env |= {"SWEEP_SECONDS": "1", "DEED_HINT_AGAIN_SECONDS": "2"}
    deployment.start_sandbox()
    deployment.start_beat()
    full = Path("/dev/full")
    web = ["-m", "gunicorn", "-c", "python:partner_api.gunicorn_conf", "partner_api.wsgi:application"]
    worker = ["-m", "celery", "-A", "partner_api", "worker", "--without-gossip", "--without-mingle"]
    with full.open("w") as output:
        running = [
            subprocess.Popen(
                [sys.executable, *argv], env=deployment.env, cwd=ROOT, stdout=output, stderr=output
            )
            for argv in (web, worker)
        ]
    try:
        deployment.children[0].wait_until(deployment._answers, seconds=30)
        headers = {"Authorization": f"Bearer {Api.of(acme).text}", "Prefer": "wait=25"}
        answer = requests.post(f"{deployment.url}/v2/deeds", json=order(), headers=headers, timeout=30)
        # 201 where the worker has started by then.
        assert answer.status_code in {201, 202}
        made = Deed.objects.filter(pk=answer.json()["id"], status="completed")
        deployment.children[0].wait_until(
            lambda: made.exists() or any(process.poll() is not None for process in running), seconds=90
        )
        assert [process.poll() for process in running] == [None, None]
    finally:
        for process in running:
            process.terminate()
        assert all(process.wait(30) is not None for process in running)
