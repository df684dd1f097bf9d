"""What a local stack takes from `.env`: the servers that it is told to use, and nothing else.

A `.env` beside the code may be a deployment's. Its bucket, its Stripe and its mail server are not for a demo;
they are used only where the real environment names them.
"""

import os
from pathlib import Path
from typing import Final

from partner_api.environment import NOT_PRODUCTION, Env, values_in

NAMES: Final = (
    "PORT",
    "VAR_DIR",
    "ONCE",
    "DATABASE_URL",
    "REDIS_URL",
    "MAIN_API_BASE_URL",
    "MAIN_API_INTERNAL_TOKEN",
    "STORAGE",
    "STRIPE",
    "LOG_FORMAT",
)


def take_from(file: Path) -> str:
    """Puts them into the environment, which wins. A sentence for the person at the terminal, or nothing.

    Of a file that names a kind of production nothing is taken: the demo would put its partners, and a member
    of staff whose password it prints, into that database.
    """
    values = values_in(file)
    environment = values.get("ENVIRONMENT", "demo")
    is_left_alone = environment not in NOT_PRODUCTION
    env = Env()
    env.ENVIRON = type(Env.ENVIRON)({**({} if is_left_alone else values), **os.environ}, cache=False)
    for name in NAMES:
        value = env.str(name, default="").strip()
        if value:
            os.environ[name] = value
            # It would win over what the stack says.
            os.environ.pop(f"{name}_FILE", None)
    if is_left_alone:
        return f"{file.name} is for ENVIRONMENT={environment}, so nothing of it is used here"
    return ""
