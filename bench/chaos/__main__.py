"""`make chaos`, with ORDERS, KILLS, SEED, LIMIT and KEEP=1 (which leaves the logs) from the environment."""

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from partner_api.local import engines
from partner_api.local.processes import Failed, Family, Stopped

if TYPE_CHECKING:
    from bench.chaos.run import Result


def main() -> int:
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    print(f"seed {seed}: repeat this run with  make chaos SEED={seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="partner-api-chaos-"))
    family = Family()
    is_good = False
    try:
        postgres, database_url = engines.start_postgres(
            folder / "postgres",
            password=secrets.token_hex(16),
            log=folder / "logs" / "postgres.log",
            durable=False,
        )
        family.add(postgres)
        is_good = _run(seed, folder, database_url)
    except Failed as failure:
        print(f"\nchaos failed: {failure}", file=sys.stderr)
    except Stopped as signal:
        print(f"\nstopped by {signal}; everything has ended", file=sys.stderr)
    finally:
        family.stop()
        if is_good and os.environ.get("KEEP") != "1":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs are in {folder / 'logs'}")
    return 0 if is_good else 1


def _run(seed: int, folder: Path, database_url: str) -> bool:
    _set_up_django(folder, database_url)
    from django.core.management import call_command

    from bench.chaos.plan import Plan
    from bench.chaos.run import run

    call_command("migrate", interactive=False, verbosity=0)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    orders, kills, limit = (
        int(os.environ.get(name) or default)
        for name, default in (("ORDERS", Plan.orders), ("KILLS", Plan.kills), ("LIMIT", Plan.limit))
    )
    plan = Plan(seed, orders=orders, kills=kills, limit=limit)
    result = run(plan, folder, database_url=database_url, say=say)
    _print(result)
    return result.is_good


def _set_up_django(folder: Path, database_url: str) -> None:
    import django

    os.environ.update(
        DJANGO_SETTINGS_MODULE="partner_api.settings",
        ENVIRONMENT="test",
        SECRET_KEY=secrets.token_hex(32),
        FIELD_ENCRYPTION_KEYS=engines.fernet_key(),
        PUBLIC_BASE_URL="http://127.0.0.1",
        DATABASE_URL=database_url,
        # This process asks nothing of Redis; the deployment has one of its own.
        REDIS_URL="redis://127.0.0.1:1/0",
        VAR_DIR=str(folder),
        LOG_LEVEL="ERROR",
        EMAIL_URL="dummymail://",
    )
    django.setup()


def _print(result: "Result") -> None:
    print(f"\n{'what was broken':<34}times")
    for what, count in sorted(result.blows.items()):
        print(f"  {what:<32}{count:>5}{'' if what == 'storage' else '  killed'}")
    print(f"\n{'orders that ask for the fault':<34}end")
    for (fault, end), count in sorted(result.outcomes.items()):
        print(f"  {fault:<32}{count:>5}  {end}")
    print(f"\n{'answers':<34}times")
    for status, count in sorted(result.statuses.items()):
        print(f"  {status:<32}{count:>5}")
    print()
    for what, seconds in result.times.items():
        print(f"  {what}: {seconds:.1f} s")
    print(f"\n{'what must be true':<44}off")
    for name, faults in result.faults.items():
        print(f"  {name:<42}{len(faults):>5}")
        for fault in faults[:5]:
            print(f"      {fault[:1500]}")
    orders = sum(result.outcomes.values())
    print(f"\n{orders} orders, {result.kills} kills: {'all is well' if result.is_good else 'NOT GOOD'}")


if __name__ == "__main__":
    sys.exit(main())
