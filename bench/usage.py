"""Whether questions about usage stay as fast as the request log grows, and what writing it costs.

Two databases on one Postgres, one with ten thousand requests of three months and one with ten million, have
a web server each, which are asked the same by turns. A third server does all that the first does but keep
the request log.
"""

import json
import os
import statistics
import subprocess
import sys
from base64 import b32decode
from functools import partial
from typing import Any, Final

from bench.harness import Bench, Figure, at_least, at_most, facts, in_turns, measure, ratio
from bench.load import http

PARTNERS: Final = 50
KEYS_PER_PARTNER: Final = 2
DEEDS: Final = 50
SMALL: Final = 10_000
LARGE: Final = 10_000_000
ROUNDS: Final = 5
PAGE: Final = "/admin/billing/analytics/"
# How long a turn is, so that a tail can be told: the page takes several times as long.
SECONDS: Final = {"usage": 0.7, "admin_usage": 1.4}
METERED_ROUNDS: Final = 3
METERED_SECONDS: Final = 1.5
# Rows wait for two seconds before they are stored. So long is not measured at the start of a turn: as many
# are stored as written then, and those of the turn before are stored too.
SETTLING_SECONDS: Final = 2.2


def run(bench: Bench) -> list[Figure]:
    small = bench.database("usage_small")
    server, _, name = small.rpartition("/")
    large = f"{server}/{name}_large"
    holders = json.loads(_run("make_holders", small))
    _sql(f"{server}/postgres", f"CREATE DATABASE {name}_large TEMPLATE {name}")
    _run("fill", small, SMALL)
    filled = json.loads(_run("fill", large, LARGE))
    # Each has a spool of its own: a server stores what others left behind.
    urls = {
        size: bench.web(env={"DATABASE_URL": url, "USAGE_SPOOL_DIR": str(bench.folder / f"spool-{size}")})
        for size, url in (("small", small), ("large", large))
    }
    questions = {
        "usage": http("GET", "/v2/usage", headers={"Authorization": f"Bearer {holders['key']}"}),
        "admin_usage": http("GET", PAGE, headers={"Cookie": holders["cookie"]}),
    }
    figures = [_tails(name, question, urls, filled) for name, question in questions.items()]
    without = {
        "DATABASE_URL": small,
        "USAGE_SPOOL_DIR": str(bench.folder / "spool-without"),
        "BENCH_WITHOUT_REQUEST_LOG": "1",
    }
    return [*figures, _overhead({"with": urls["small"], "without": bench.web(env=without)}, holders)]


def _tails(name: str, question: str, urls: dict[str, str], filled: dict[str, float]) -> Figure:
    """p99 against p99, of one client that asks again and again."""
    for url in urls.values():
        measure(url, [question], seconds=1, connections=1)  # warm

    def turn(url: str) -> float:
        return measure(url, [question], seconds=SECONDS[name], connections=1).percentile(0.99)

    values = in_turns({size: partial(turn, url) for size, url in urls.items()}, rounds=ROUNDS)
    last = {f"{size}_p99_ms": statistics.median(found) for size, found in values.items()}
    detail = facts(rows=filled["rows"], fill_seconds=filled["seconds"], **last)
    return at_most(f"{name}_10m_vs_10k", ratio(values, "large", "small"), 2, detail)


def _overhead(urls: dict[str, str], holders: dict[str, Any]) -> Figure:
    """Requests a second with the request log against without: the product's commonest read."""
    headers = {"Authorization": f"Bearer {holders['key']}"}
    lines = [http("GET", f"/v2/deeds/{deed}", headers=headers) for deed in holders["deeds"]]

    def turn(url: str) -> float:
        measure(url, lines, seconds=SETTLING_SECONDS)
        return measure(url, lines, seconds=METERED_SECONDS).per_second

    values = in_turns({name: partial(turn, url) for name, url in urls.items()}, rounds=METERED_ROUNDS)
    best = {f"{name}_per_second": max(found) for name, found in values.items()}
    return at_least("metering_overhead", ratio(values, "with", "without"), 0.9, facts(**best))


def make_holders() -> dict[str, Any]:
    """Partners with keys and one with deeds; the key that asks, and the cookie of a member of staff."""
    from bench.orders import FAST, partner_with_key, place
    from keys.models import ApiKey, Partner

    partner, text = partner_with_key("Bench asks")
    deeds = [str(deed.pk) for deed in place(partner, DEEDS)]
    for number in range(PARTNERS - 1):
        other = Partner.objects.create(name=f"Bench {number}")
        for _ in range(KEYS_PER_PARTNER):
            ApiKey.issue(other, name="Bench", environment="live", scopes=["usage:read"], **FAST)
    ApiKey.issue(partner, name="Bench", environment="live", scopes=["usage:read"], **FAST)
    return {"key": text, "deeds": deeds, "cookie": _log_in()}


def _log_in() -> str:
    """Someone who may see the analytics, logged in by password and code."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import Permission
    from django.test import Client
    from django_otp.oath import TOTP

    from keys.models import Authenticator

    form = {"username": "bench", "password": os.urandom(16).hex(), "next": "/admin/"}
    user = get_user_model().objects.create_user("bench", password=form["password"], is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_analytics"))
    device = Authenticator.objects.create(user=user, name="bench", confirmed=True)
    client = Client()
    answer = client.post("/admin/login/", form | {"token": f"{TOTP(b32decode(device.secret)).token():06}"})
    if settings.SESSION_COOKIE_NAME not in client.cookies:
        raise RuntimeError(answer.content.decode())
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def _run(function: str, database: str, *arguments: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench.usage", function, *map(str, arguments)],
        env={**os.environ, "DATABASE_URL": database, "LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _sql(database: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement)


if __name__ == "__main__":
    import django

    django.setup()
    match sys.argv[1:]:
        case ["make_holders"]:
            print(json.dumps(make_holders()))
        case ["fill", rows]:
            from bench.usage_rows import fill

            print(json.dumps(fill(int(rows), keys_each=KEYS_PER_PARTNER)))
