"""`python -m partner_api.local demo|dev|exec -- COMMAND…`"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from partner_api.local import demo, engines, given
from partner_api.local.processes import Failed, Family, Stopped


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m partner_api.local", description=__doc__)
    parser.add_argument("what", choices=["demo", "dev", "exec"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        if arguments.what == "exec":
            return _exec(arguments.command)
        note = given.take_from(Path(__file__).resolve().parent.parent.parent / ".env")
        if note:
            print(note)  # noqa: T201 - for people
        environment = "demo" if arguments.what == "demo" else "development"
        demo.run(once=os.environ.get("ONCE") == "1", environment=environment)
    except Failed as failure:
        print(f"\n{arguments.what} failed: {failure}", file=sys.stderr)  # noqa: T201 - for people
        return 1
    except Stopped as signal:
        print(f"\nstopped by {signal}; everything has ended", file=sys.stderr)  # noqa: T201 - for people
    return 0


def _exec(command: list[str]) -> int:
    """Runs a command beside throw-away engines, and ends with its exit code."""
    family = Family()
    with tempfile.TemporaryDirectory(prefix="partner-api-") as folder:
        try:
            env = {**os.environ}
            for variable, start in (
                ("REDIS_URL", engines.start_redis),
                ("DATABASE_URL", engines.start_postgres),
            ):
                if not env.get(variable):
                    name = variable.partition("_")[0].lower()
                    data, log = Path(folder, name), Path(folder, f"{name}.log")
                    child, url = start(data, password="local", log=log, durable=False)  # noqa: S106 - throw-away engines, on this machine only
                    family.add(child)
                    env[variable] = url
            argv = command[1:] if command[:1] == ["--"] else command
            return subprocess.run(argv, env=env, check=False).returncode  # noqa: S603 - as asked
        finally:
            family.stop()


if __name__ == "__main__":
    sys.exit(main())
