"""The engines, their supervision, and the demo: real processes, which all end."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests
from pypdf import PdfReader

from partner_api.local import s3_server
from partner_api.local.engines import start_postgres, start_redis
from partner_api.local.given import NAMES, take_from
from partner_api.local.ports import free_port
from partner_api.local.processes import Child, Failed

ROOT = Path(__file__).parent.parent.parent
# Not only a space: what a careless quoting would trip over.
ODD_FOLDER = "a 'b' c"


def until(is_true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that were started for a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        needle = os.fsencode(folder)
        if (needle in command or b"VAR_DIR=" + needle in environment) and int(entry.name) != os.getpid():
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_postgres_keeps_its_data_and_hides_its_password(tmp_path: Path) -> None:
    data, log = tmp_path / ODD_FOLDER / "postgres", tmp_path / "postgres.log"
    child, url = start_postgres(data, password="hush", log=log, durable=True)
    try:
        with psycopg.connect(url) as database:
            version = database.execute("SHOW server_version_num").fetchone()
            database.execute("CREATE TABLE kept (n int)")
        assert version is not None
        assert int(version[0]) >= 160000
        assert (
            "hush" not in subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
        )
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url.replace("hush", "guess"))
    finally:
        child.kill()
    child, url = start_postgres(data, password="hush", log=log, durable=True)
    try:
        with psycopg.connect(url) as database:
            assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    finally:
        child.stop(seconds=8)
    assert not alive(child.pid)


def test_redis_keeps_its_data_and_hides_its_password(tmp_path: Path) -> None:
    data, log = tmp_path / "a b" / "redis", tmp_path / "redis.log"
    child, url = start_redis(data, password="hush", log=log, durable=True)
    try:
        with redis.Redis.from_url(url) as client:
            client.set("kept", "1")
        with (
            pytest.raises(redis.AuthenticationError),
            redis.Redis.from_url(url.replace("hush", "")) as client,
        ):
            client.get("kept")
        listed = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
        assert "hush" not in listed
    finally:
        child.kill()
    child, url = start_redis(data, password="hush", log=log, durable=True)
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"1"
    child.stop(seconds=5)
    assert not alive(child.pid)


def test_a_process_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    script = "print('first', flush=True); raise SystemExit('the reason')"
    child = Child("broken", [sys.executable, "-c", script], log=tmp_path / "log")
    with pytest.raises(Failed, match=r"(?s)broken ended with exit code 1.*first.*the reason"):
        child.wait_until(lambda: False, seconds=10)


def test_a_child_that_dies_is_named_and_all_others_end(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from partner_api.local.processes import Child, Failed, Family
family = Family()
for name in ("web", "worker"):
    family.add(Child(name, ["sleep", "600"], log=Path({str(tmp_path)!r}) / name))
print(*(child.pid for child in family.children), flush=True)
try:
    while True:
        family.check()
except Failed as failure:
    sys.exit(str(failure))
finally:
    family.stop()
"""
    family = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert family.stdout is not None
    web, worker = map(int, family.stdout.readline().split())
    os.kill(worker, signal.SIGKILL)
    said = family.communicate(timeout=20)[1]
    assert family.returncode == 1
    assert "worker was killed by signal 9" in said
    assert not alive(web)


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    child = Child("parent", [sys.executable, "-c", script], log=tmp_path / "log")
    child.wait_until(lambda: child.log.read_text().strip().isdigit(), seconds=10)
    grandchild = int(child.log.read_text())
    child.stop(seconds=0.1)
    until(lambda: not alive(grandchild) and not alive(child.pid))


class Demo:
    def __init__(self, folder: Path, what: str = "demo", code: Path = ROOT, **env: str) -> None:
        self.folder = folder
        self.var_dir = folder / "var"
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "output"
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "partner_api.local", what],
                env=base | {"PORT": str(self.port), "VAR_DIR": str(self.var_dir)} | env,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=code,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.var_dir / "demo" / "demo.json").read_text())
        return facts

    def wait_until_it_serves(self) -> None:
        until(lambda: self.process.poll() is not None or "everything answers" in self.said(), 90)
        assert self.process.poll() is None, self.said()

    def wait_until_it_ended(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(name: str = "a demo", what: str = "demo", code: Path = ROOT, **env: str) -> Demo:
        started.append(Demo(tmp_path / name, what, code, **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(30)


def test_a_taken_port_is_named(demo: Callable[..., Demo]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = demo(PORT=str(port))
        assert refused.wait_until_it_ended() == 1
    assert f"port {port} is taken" in refused.said()
    assert not (refused.var_dir / "postgres").exists()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("STRIPE", "paypal", "STRIPE=twin"), ("STORAGE", "S3", "STORAGE=s3"), ("STORAGE", "gcs", "STORAGE=s3")],
)
def test_a_choice_that_is_unknown_is_named_with_what_there_is(
    demo: Callable[..., Demo], name: str, value: str, allowed: str
) -> None:
    refused = demo(**{name: value})
    assert refused.wait_until_it_ended() == 1
    assert f"{name} is '{value}'; there is {allowed}" in refused.said()
    assert not (refused.var_dir / "postgres").exists()


@dataclass(frozen=True)
class Given:
    """Servers that run already: a Main API that is not ours, and engines."""

    env: dict[str, str]
    main_api: Child


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    postgres, database_url = start_postgres(
        tmp_path / "pg", password="given", log=tmp_path / "pg.log", durable=False
    )
    cache, redis_url = start_redis(
        tmp_path / "redis", password="given", log=tmp_path / "r.log", durable=False
    )
    port = free_port()
    code = (
        "from wsgiref.simple_server import make_server; from deeds.sandbox.app import SandboxApp; "
        f"make_server('127.0.0.1', {port}, SandboxApp('their-token')).serve_forever()"
    )
    theirs = Child("theirs", [sys.executable, "-c", code], log=tmp_path / "theirs.log")
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "MAIN_API_BASE_URL": f"http://127.0.0.1:{port}",
        "MAIN_API_INTERNAL_TOKEN": "their-token",
    }
    try:
        yield Given(env, theirs)
    finally:
        for child in (theirs, cache, postgres):
            child.stop(seconds=5)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the code, which may have a `.env` of its own."""
    copy = tmp_path / "code"
    for name in ("partner_api", "keys", "billing", "deeds", "webhooks", "templates"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", copy)
    return copy


def test_once_makes_the_first_deed_and_a_billing_month_and_ends_and_leaves_another_alone(
    demo: Callable[..., Demo], given: Given, code: Path, tmp_path: Path
) -> None:
    """Beside a deployment's settings, of which only the servers are used that the demo may have; they are
    left running. The PDFs go to an S3 that is not the deployment's, the bills to a Stripe that is not."""
    theirs = {
        **given.env,
        "ONCE": "1",
        "STORAGE_BACKEND": "s3",
        "S3_BUCKET": "deeds-of-production",
        "STRIPE_SECRET_KEY": "sk_live_1234567890",  # pragma: allowlist secret
        "EMAIL_URL": "smtp://127.0.0.1:9",
        "SECRET_KEY": "of-production",
        "FIELD_ENCRYPTION_KEYS": "of-production",
        "METRICS_CACHE_SECONDS": "nonsense",
    }
    (code / ".env").write_text("".join(f"{name}={text}\n" for name, text in theirs.items()))
    beside, once = demo("beside", what="dev"), demo(STRIPE="twin", STORAGE="s3", code=code)
    assert once.process.wait(180) == 0, once.said()
    assert "is paid: 149.00 USD" in once.said()
    assert "0 variances" in once.said()
    path = once.var_dir / "demo" / "first-deed.pdf"
    text = "".join(page.extract_text() for page in PdfReader(path).pages)
    for fact in ("ALICE SMITH", "BOB JONES", "8381-021-001"):
        assert fact in text
    facts = once.var_dir / "demo" / "demo.json"
    assert stat.S_IMODE(facts.stat().st_mode) == 0o600
    assert processes_of(once.folder) == []
    assert "POST /api/generate/grant-deed-ca" in given.main_api.log.read_text()
    assert once.facts()["pids"]["postgres"] == once.facts()["pids"]["redis"] == 0
    with psycopg.connect(given.env["DATABASE_URL"]) as database:
        found = database.execute("SELECT status, count(*) FROM external_deeds GROUP BY status").fetchall()
    assert found == [("completed", 1 + 8)], "the first, and those of the month"
    [log] = once.var_dir.rglob("s3.log")
    asked = re.findall(r'"(PUT|GET) /partner-api-deeds/(\S+?)(\?\S*)? HTTP/1.1" 200', log.read_text())
    put = [name for method, name, _ in asked if method == "PUT" and name.endswith(".pdf")]
    assert len(put) == 1 + 8
    assert [name for method, name, signed in asked if method == "GET" and "Signature=" in signed] == put[:1]
    assert not list(once.var_dir.joinpath("storage").rglob("*.pdf"))
    _serves_and_ends_whole(beside, Demo(tmp_path / "third", VAR_DIR=str(beside.var_dir)))


def _serves_and_ends_whole(serving: Demo, second: Demo) -> None:
    """The one with reload answers as production does, makes no deed by itself, and ends when asked."""
    serving.wait_until_it_serves()
    facts = serving.facts()
    assert all(alive(pid) for pid in facts["pids"].values())
    for name in ("partner", "other_partner"):
        headers = {"Authorization": f"Bearer {facts[name]['api_key']}"}
        assert requests.get(f"{facts['base_url']}/v2/deeds", headers=headers, timeout=5).status_code == 200
    answer = requests.get(f"{facts['base_url']}/nothing", timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert not (serving.var_dir / "demo" / "first-deed.pdf").exists()
    issued = subprocess.run(
        [sys.executable, "manage.py", "issue_key", "Acme Title", "--name", "Beside"],
        env={"PATH": os.environ["PATH"], "VAR_DIR": str(serving.var_dir)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert issued.stdout.startswith("dp_test_")
    assert second.wait_until_it_ended() == 1
    assert "another stack already runs" in second.said()
    serving.process.send_signal(signal.SIGINT)
    assert serving.wait_until_it_ended() == 0, serving.said()
    assert processes_of(serving.folder) == []


def test_nothing_is_taken_from_a_file_that_is_for_production(tmp_path: Path, monkeypatch: Any) -> None:
    """The demo would put a member of staff whose password it prints into that database."""
    for name in (*NAMES, "MAIN_API_INTERNAL_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", "8001")
    file, token = tmp_path / ".env", tmp_path / "token"
    token.write_text("whispered\n")
    text = f"PORT=8002\nDATABASE_URL=postgres://u:p@h/n\nMAIN_API_INTERNAL_TOKEN_FILE={token}\nSTRIPE_SECRET_KEY=x\n"

    def taken() -> list[str | None]:
        return [os.environ.get(name) for name in ("PORT", "DATABASE_URL", "MAIN_API_INTERNAL_TOKEN")]

    try:
        file.write_text(f"ENVIRONMENT=production\n{text}")
        assert "ENVIRONMENT=production" in take_from(file)
        assert taken() == ["8001", None, None]
        file.write_text(f"ENVIRONMENT=demo\n{text}")
        assert take_from(file) == ""
        assert taken() == ["8001", "postgres://u:p@h/n", "whispered"]
        assert "STRIPE_SECRET_KEY" not in os.environ
    finally:
        for name in ("DATABASE_URL", "MAIN_API_INTERNAL_TOKEN"):
            os.environ.pop(name, None)


def test_the_s3_server_has_a_bucket_and_its_settings(tmp_path: Path) -> None:
    child, settings = s3_server.start(log=tmp_path / "s3.log")
    try:
        assert settings["STORAGE_BACKEND"] == "s3"
        unsigned = requests.get(f"{settings['S3_ENDPOINT_URL']}/{settings['S3_BUCKET']}/deed.pdf", timeout=5)
        assert unsigned.status_code == 404
        assert "NoSuchKey" in unsigned.text, "and not NoSuchBucket"
    finally:
        child.stop(seconds=5)
    assert not alive(child.pid)
