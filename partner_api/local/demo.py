"""The main job on one machine: start everything, place an order, open its PDF, then keep serving."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from partner_api.local import first_order
from partner_api.local.billing_month import Month
from partner_api.local.processes import POLL_SECONDS, Child, Failed
from partner_api.local.stack import Stack, write_private

_OK = 200
# Workers have nothing to tell each other, and asking around takes a second.
WORKER_FLAGS = ("--without-gossip", "--without-mingle")


def run(*, once: bool, environment: str = "demo") -> None:
    """Until a signal, or the first deed with `once`. Raises Failed, and leaves nothing running."""
    started = time.monotonic()
    port = _port()
    _refuse_taken(port)
    _refuse_unknown("STRIPE", ("twin",), "STRIPE=twin, and Stripe itself with STRIPE_SECRET_KEY")
    _refuse_unknown("STORAGE", ("s3",), "STORAGE=s3, and a folder without it")
    var_dir = Path(os.environ.get("VAR_DIR") or "var").absolute()
    stack = Stack(var_dir, environment=environment, port=port)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)  # noqa: T201 - for people

    try:
        say(f"starting Postgres, Redis and the sandbox Main API (data and logs in {var_dir})")
        stack.start_engines()
        if os.environ.get("STORAGE") == "s3":
            say("starting an S3 server; PDFs go there, and end with it")
            stack.start_s3()
        stack.start_sandbox()
        month = _month(stack)
        stack.write_settings()
        web = _start_web(stack, port, environment)
        worker = stack.start("worker", ["-m", "celery", "-A", "partner_api", "worker", *WORKER_FLAGS])
        schedule = str(var_dir / "run" / "celerybeat-schedule")
        stack.start("beat", ["-m", "celery", "-A", "partner_api", "-q", "beat", "--schedule", schedule])
        say("migrating the database and seeding two partners")
        seeded = _seed(stack)
        say("starting the web server, the worker and beat")
        base_url = stack.own["PUBLIC_BASE_URL"]
        web.wait_until(lambda: _is_ready(base_url), seconds=60)
        # Its log says so too, unless LOG_LEVEL keeps it from it.
        worker.wait_until((stack.heartbeats / "worker").exists, seconds=60)
        stack.family.check()
        if month is not None:
            month.prepare(seeded["partner"], say)
        if environment == "demo":
            _first_deed(stack, base_url, seeded["partner"]["api_key"], say)
            if month is not None:
                month.show(base_url, seeded["partner"], say)
        _hand_over(stack, base_url, seeded, say)
        while not once:
            stack.family.check()
            time.sleep(POLL_SECONDS * 4)
    finally:
        stack.stop()


def _month(stack: Stack) -> Month | None:
    """With STRIPE=twin, a Stripe to show a billing month with."""
    if not os.environ.get("STRIPE"):
        return None
    month = Month(stack)
    month.start_twin()
    return month


def _start_web(stack: Stack, port: int, environment: str) -> Child:
    if environment == "development":
        # Without DEBUG: what a client sees is what it will see, and Django's error pages are HTML.
        return stack.start("web", ["manage.py", "runserver", f"127.0.0.1:{port}"])
    stack.own["WEB_BIND"] = f"127.0.0.1:{port}"
    configuration = "python:partner_api.gunicorn_conf"
    arguments = ["-m", "gunicorn", "-c", configuration, "partner_api.wsgi:application"]
    return stack.start("web", arguments)


def _seed(stack: Stack) -> dict[str, Any]:
    state = stack.var_dir / "demo" / "seed.json"
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "manage.py", "seed_demo", "--migrate", "--state", str(state)],
        env=stack.env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"manage.py seed_demo ended with exit code {done.returncode}:\n{done.stderr}"
        raise Failed(message)
    seeded: dict[str, Any] = json.loads(done.stdout)
    return seeded


def _first_deed(stack: Stack, base_url: str, api_key: str, say: Any) -> None:
    say(f"ordering a grant deed: POST {base_url}/v2/deeds")
    deed = first_order.place(base_url, api_key)
    say(f"deed {deed['id']} is completed: {deed['pdf']['pages']} pages")
    path = stack.var_dir / "demo" / "first-deed.pdf"
    size = first_order.download(deed["pdf"]["url"], path)
    say(f"downloaded {size:,} bytes through its signed link to {path}")


def _hand_over(stack: Stack, base_url: str, seeded: dict[str, Any], say: Any) -> None:
    """demo.json for tools, and the same for people."""
    facts = {
        "base_url": base_url,
        "docs_url": f"{base_url}/docs/",
        "metrics_url": f"{base_url}/metrics",
        **seeded,
        "pids": dict.fromkeys(("web", "worker", "beat", "redis", "postgres", "sandbox"), 0) | stack.pids,
    }
    path = stack.var_dir / "demo" / "demo.json"
    write_private(path, json.dumps(facts, indent=2) + "\n")
    say(f"everything answers; keys and process ids are in {path}")
    partner, other, admin = seeded["partner"], seeded["other_partner"], seeded["admin"]
    lines = [
        ("API", base_url),
        ("API docs", facts["docs_url"]),
        ("Metrics", facts["metrics_url"]),
        ("Admin", f"{admin['url']}  ({admin['username']} / {admin['password']})"),
        ("Admin, TOTP secret", admin["totp_secret"]),
        ("Admin API token", seeded["admin_api_token"]),
        (f"{partner['name']}, live key", partner["api_key"]),
        (f"{partner['name']}, test key", partner["test_api_key"]),
        (f"{partner['name']}, read-only key", partner["read_only_key"]),
        (f"{other['name']}, live key", other["api_key"]),
    ]
    for label, value in lines:
        print(f"          {label + ':':<28} {value}", flush=True)  # noqa: T201 - for people


def _is_ready(base_url: str) -> bool:
    try:
        return requests.get(f"{base_url}/readyz", timeout=2).status_code == _OK
    except requests.RequestException:
        return False


def _port() -> int:
    given = os.environ.get("PORT") or "8000"
    if not given.isdigit() or not 0 < int(given) < 65536:  # noqa: PLR2004 - the highest port
        message = f"PORT is {given!r}; it must be a number from 1 to 65535"
        raise Failed(message)
    return int(given)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"port {port} is taken ({error.strerror}); choose another: make demo PORT=8001"
            raise Failed(message) from error


def _refuse_unknown(name: str, known: tuple[str, ...], there_is: str) -> None:
    """A value that was mistyped must not start something else."""
    wanted = os.environ.get(name, "")
    if wanted not in {"", *known}:
        message = f"{name} is {wanted!r}; there is {there_is}"
        raise Failed(message)
