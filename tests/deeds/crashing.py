"""Run as a process: makes deeds, and dies at a given step of each, as by SIGKILL.

Arguments are pairs of a deed's id and the step. Each deed is made by a process of its own, forked
before the database is touched.
"""

import os
import sys
from typing import Any

import django

STEPS = {
    "before the call": ("deeds.fulfilment", "render"),
    "after the call": ("deeds.pdf", "check"),
    "after the store": ("deeds.outcomes", "completed"),
    "before the commit": ("deeds.outcomes", "_announce"),
}
EXIT_CODE = 9


def dies(*_: Any, **__: Any) -> None:
    os._exit(EXIT_CODE)


def main() -> None:
    django.setup()
    from deeds import tasks

    pairs = iter(sys.argv[1:])
    for deed_id, step in zip(pairs, pairs, strict=True):
        if os.fork() == 0:
            module, name = STEPS[step]
            setattr(sys.modules[module], name, dies)
            tasks.serve(deed_id)
            os._exit(0)
        _, status = os.wait()
        if os.waitstatus_to_exitcode(status) != EXIT_CODE:
            sys.exit(f"{step}: it did not die")


if __name__ == "__main__":
    main()
