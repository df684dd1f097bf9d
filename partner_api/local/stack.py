"""The environment of a local stack: what is given from outside is used, the rest is started and made up."""

import fcntl
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import IO

from partner_api.local import engines, ports
from partner_api.local.processes import POLL_SECONDS, Child, Failed, Family

_SECRETS = (
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "SANDBOX_TOKEN",
    "ADMIN_JWT_SECRET",
    "SETUP_SECRET",
)
# A tool that looks whether we run holds it for a moment.
_LOCK_SECONDS = 0.5
_FERNET_KEYS = ("FIELD_ENCRYPTION_KEYS",)


class Stack:
    """Processes, and the settings by which they find each other.

    `env` is the environment of every child; `pids` what runs, by name.
    """

    def __init__(self, var_dir: Path, *, environment: str, port: int) -> None:
        self.var_dir = var_dir
        self.heartbeats = var_dir / "run" / "heartbeats"
        self.family = Family()
        self.pids: dict[str, int] = {}
        self.lock = _lock(var_dir)
        self.secrets = _secrets(var_dir / "demo" / "secrets.json")
        self.own = {
            "ENVIRONMENT": environment,
            "SECRET_KEY": self.secrets["SECRET_KEY"],
            "FIELD_ENCRYPTION_KEYS": self.secrets["FIELD_ENCRYPTION_KEYS"],
            "PUBLIC_BASE_URL": f"http://127.0.0.1:{port}",
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "VAR_DIR": str(var_dir),
            # Less than a child is given before it is killed.
            "WORKER_STOP_SECONDS": "5",
            "LOG_FORMAT": os.environ.get("LOG_FORMAT", "console"),
            "SETUP_SECRET": os.environ.get("SETUP_SECRET") or self.secrets["SETUP_SECRET"],
            # So that webhooks can be tried with a receiver on this machine, and nowhere else inside.
            "WEBHOOKS_ALLOW_HTTP": os.environ.get("WEBHOOKS_ALLOW_HTTP", "true"),
            "WEBHOOKS_ALLOW_PRIVATE_ADDRESSES": os.environ.get(
                "WEBHOOKS_ALLOW_PRIVATE_ADDRESSES", "127.0.0.1/32,::1/128"
            ),
            # Tools on this machine fetch many PDFs from one address.
            "PUBLIC_RATE_LIMIT_PER_MINUTE": os.environ.get("PUBLIC_RATE_LIMIT_PER_MINUTE", "60000"),
            "PUBLIC_RATE_LIMIT_BURST": os.environ.get("PUBLIC_RATE_LIMIT_BURST", "6000"),
            "METRICS_ALLOWED_CIDRS": os.environ.get("METRICS_ALLOWED_CIDRS", "127.0.0.1/32"),
            "PROMETHEUS_MULTIPROC_DIR": _empty(var_dir / "run" / "metrics"),
            "HEARTBEAT_DIR": _empty(self.heartbeats),
        }
        if not os.environ.get("ADMIN_JWKS_URL"):
            self.own["ADMIN_JWT_SECRET"] = (
                os.environ.get("ADMIN_JWT_SECRET") or self.secrets["ADMIN_JWT_SECRET"]
            )

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.own, "PYTHONUNBUFFERED": "1"}

    def start_engines(self) -> None:
        """Postgres and Redis, each unless its URL was given. Raises Failed."""
        for name, variable, start in (
            ("redis", "REDIS_URL", engines.start_redis),
            ("postgres", "DATABASE_URL", engines.start_postgres),
        ):
            if os.environ.get(variable):
                self.own[variable] = os.environ[variable]
                continue
            child, url = start(
                self.var_dir / name,
                password=self.secrets[f"{name.upper()}_PASSWORD"],
                log=self._log(name),
                durable=True,
            )
            self._keep(child)
            self.own[variable] = url

    def start_sandbox(self) -> None:
        """The sandbox always runs, for test-mode keys; live orders go there unless told otherwise."""
        port = ports.free_port()
        url = f"http://127.0.0.1:{port}"
        self.own["SANDBOX_BASE_URL"] = url
        self.own["SANDBOX_TOKEN"] = self.secrets["SANDBOX_TOKEN"]
        self.own["MAIN_API_BASE_URL"] = os.environ.get("MAIN_API_BASE_URL") or url
        self.own["MAIN_API_INTERNAL_TOKEN"] = (
            os.environ.get("MAIN_API_INTERNAL_TOKEN") or self.secrets["SANDBOX_TOKEN"]
        )
        self.start("sandbox", ["manage.py", "runsandbox", "--port", str(port)])

    def start_s3(self) -> None:
        """An S3 server in memory, with a bucket: what it keeps ends with it. Raises Failed."""
        from partner_api.local import s3_server  # noqa: PLC0415 - boto3 takes a while to load

        child, settings = s3_server.start(log=self._log("s3"))
        self._keep(child)
        self.own |= settings

    def start(self, name: str, arguments: list[str]) -> Child:
        """Starts Python with these arguments."""
        return self._keep(Child(name, [sys.executable, *arguments], env=self.env, log=self._log(name)))

    def write_settings(self) -> None:
        """Leaves the settings where `manage.py` with the same VAR_DIR finds them."""
        lines = "".join(f"{name}={value}\n" for name, value in self.own.items())
        write_private(self.var_dir / "run" / "local.env", lines)

    def stop(self) -> None:
        self.family.stop()
        (self.var_dir / "run" / "local.env").unlink(missing_ok=True)
        self.lock.close()

    def _keep(self, child: Child) -> Child:
        self.pids[child.name] = child.pid
        return self.family.add(child)

    def _log(self, name: str) -> Path:
        return self.var_dir / "logs" / f"{name}.log"


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _lock(var_dir: Path) -> IO[str]:
    (var_dir / "run").mkdir(parents=True, exist_ok=True)
    lock = (var_dir / "run" / "lock").open("w")
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _is_taken(lock):
        if time.monotonic() > deadline:
            message = f"another stack already runs on {var_dir}; stop it, or choose another VAR_DIR"
            raise Failed(message)
        time.sleep(POLL_SECONDS)
    return lock


def _is_taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(folder: Path) -> str:
    """What the processes of an earlier start left there is not taken for ours."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    return str(folder)


def _secrets(path: Path) -> dict[str, str]:
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = {name: secrets.token_hex(32) for name in _SECRETS}
    made |= {name: engines.fernet_key() for name in _FERNET_KEYS}
    if made.keys() - kept.keys():
        kept = made | kept
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_private(path, json.dumps(kept))
    return kept
