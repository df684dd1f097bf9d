"""What row-level security would cost on the deeds' table, measured on a throw-away Postgres.

`python -m bench.row_security` prints the time of a partner's typical statements without it, with a
policy and `SET LOCAL` in a transaction, and with a policy and one setting a connection.
"""

import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
import uuid_utils.compat

from partner_api.local import engines

_PARTNERS: Final = 20
_DEEDS: Final = 50_000
_ROUNDS: Final = 7
_CALLS: Final = 1500

_TABLE: Final = """
CREATE TABLE deeds (id uuid PRIMARY KEY, partner_id uuid NOT NULL, livemode boolean NOT NULL,
  order_id text NOT NULL, doc jsonb NOT NULL);
CREATE INDEX ON deeds (partner_id, livemode, id DESC);
CREATE TABLE walled (LIKE deeds INCLUDING ALL);
ALTER TABLE walled ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON walled USING (partner_id = current_setting('app.partner')::uuid)
  WITH CHECK (partner_id = current_setting('app.partner')::uuid);
CREATE ROLE app LOGIN PASSWORD 'app' NOSUPERUSER;
GRANT ALL ON deeds, walled TO app;
"""
_ONE: Final = "SELECT * FROM {} WHERE id = %s AND partner_id = %s AND livemode"
_PAGE: Final = "SELECT * FROM {} WHERE partner_id = %s AND livemode ORDER BY id DESC LIMIT 25"
_SET: Final = "SELECT set_config('app.partner', %s, {})"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="partner-api-rls-") as folder:
        server, url = engines.start_postgres(
            Path(folder, "postgres"),
            password="rls",  # noqa: S106 - throw-away
            log=Path(folder, "log"),
            durable=False,
        )
        try:
            _measure(url)
        finally:
            server.stop(seconds=5)


def _measure(url: str) -> None:
    partners = [str(uuid.uuid4()) for _ in range(_PARTNERS)]
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(_TABLE)
        rows = [(str(uuid_utils.compat.uuid7()), random.choice(partners)) for _ in range(_DEEDS)]
        with owner.cursor().copy("COPY deeds FROM STDIN") as copy:
            for deed, partner in rows:
                copy.write_row((deed, partner, True, f"O-{deed}", '{"facts": "' + "x" * 900 + '"}'))
        owner.execute("INSERT INTO walled SELECT * FROM deeds")
        owner.execute("VACUUM ANALYZE")
    with psycopg.connect(url.replace("postgres:rls@", "app:app@"), autocommit=True) as app:
        for name, statement, takes_id in (("one deed", _ONE, True), ("a page", _PAGE, False)):
            ways = _ways(app, statement, takes_id=takes_id)
            times: dict[str, list[float]] = {way: [] for way in ways}
            # In turns, so that what else the machine does falls on all alike.
            for _ in range(_ROUNDS):
                for way, call in ways.items():
                    times[way].append(_time(call, rows))
            plain = statistics.median(times["plain"])
            for way, seconds in times.items():
                each = statistics.median(seconds)
                print(f"{name:<10}{way:<28}{each * 1e6:8.0f} µs  {each / plain - 1:+7.1%}")


def _ways(
    app: psycopg.Connection[Any], statement: str, *, takes_id: bool
) -> dict[str, Callable[[str, str], object]]:
    def ask(table: str, deed: str, partner: str) -> object:
        return app.execute(statement.format(table), (deed, partner) if takes_id else (partner,)).fetchall()

    def plain(deed: str, partner: str) -> object:
        return ask("deeds", deed, partner)

    def set_local(deed: str, partner: str) -> object:
        with app.transaction():
            app.execute(_SET.format("true"), (partner,))
            return ask("walled", deed, partner)

    def set_session(deed: str, partner: str) -> object:
        app.execute(_SET.format("false"), (partner,))
        return ask("walled", deed, partner)

    return {"plain": plain, "policy, SET LOCAL": set_local, "policy, SET (session)": set_session}


def _time(call: Callable[[str, str], object], rows: list[tuple[str, str]]) -> float:
    sample = random.sample(rows, _CALLS)
    started = time.perf_counter()
    for deed, partner in sample:
        call(deed, partner)
    return (time.perf_counter() - started) / _CALLS


if __name__ == "__main__":
    main()
