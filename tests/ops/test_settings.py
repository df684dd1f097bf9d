"""A setting that is missing, misspelt or of the wrong type: the process names it in one line and stops."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from partner_api.environment import Env, read_files

ROOT = Path(__file__).parent.parent.parent
START = {
    "manage": ["manage.py", "check"],
    "web": ["-m", "gunicorn", "-c", "python:partner_api.gunicorn_conf", "partner_api.wsgi:application"],
    "worker": ["-m", "celery", "-A", "partner_api", "worker"],
    "beat": ["-m", "celery", "-A", "partner_api", "beat"],
}


def run(what: str, **changes: str | None) -> Any:
    env = {name: text for name, text in {**os.environ, **changes}.items() if text is not None}
    env["WEB_BIND"] = "127.0.0.1:0"
    argv = [sys.executable, *START[what]]
    return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("what", START)
def test_a_missing_setting_stops_with_one_line(what: str) -> None:
    ended = run(what, DATABASE_URL=None, DATABSE_URL="postgres://u:top-secret@127.0.0.1/n")
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "DATABASE_URL" in line]
    assert lines == ["not configured: DATABASE_URL is not set; DATABSE_URL is one: did you mean that?"]
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "top-secret" not in ended.stdout + ended.stderr


def test_a_setting_of_the_wrong_type_stops_with_one_line() -> None:
    ended = run("web", PDF_MAX_PAGES="many-secret-pages")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "not configured: PDF_MAX_PAGES must be a whole number"
    assert "many-secret-pages" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "text", "cast", "says"),
    [
        ("A_FLAG", "ture", "bool", "A_FLAG must be true or false"),
        ("A_COUNT", "12abc", "int", "A_COUNT must be a whole number"),
        ("A_COUNT", "", "int", "A_COUNT must be a whole number"),
        ("A_SHARE", "12abc", "float", "A_SHARE must be a number"),
        ("NETWORKS", "10.0.0.0/33", "networks", "NETWORKS must be networks"),
        ("NETWORKS", "10.0.0.1/8", "networks", "NETWORKS must be networks"),
    ],
)
def test_a_wrong_type_is_named(monkeypatch: Any, name: str, text: str, cast: str, says: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ImproperlyConfigured, match=says):
        getattr(Env(), cast)(name, default=[] if cast == "networks" else 0)


@pytest.mark.parametrize("what", ["manage", "web"])
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("LOG_FORMAT", "JSON", "must be json or console"),
        ("LOG_LEVEL", "verbose", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("WEBHOOKS_PORTS", "443,https", "must be whole numbers, by comma"),
        ("WEBHOOKS_SCHEDULE_SECONDS", "0,soon", "must be numbers, by comma"),
        ("DEED_RETRY_SCHEDULE_SECONDS", "30,1.5", "must be whole numbers, by comma"),
        ("RECONCILE_HOUR", "24", "must be an hour, 0 to 23"),
        ("WEB_WORKERS", "two", "must be a whole number"),
        ("WEB_PINNED", "ture", "must be true or false"),
    ],
)
def test_a_list_or_a_choice_that_is_wrong_stops_with_one_line(
    what: str, name: str, text: str, says: str
) -> None:
    if what == "manage" and name.startswith("WEB_"):
        pytest.skip("it is gunicorn's")
    ended = run(what, **{name: text})
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"not configured: {name} {says}"
    assert "Traceback" not in ended.stderr


def test_what_gunicorn_takes_is_read_from_the_file_as_well(tmp_path: Path) -> None:
    """As `.env` lies beside the code, in a copy of it."""
    copy = tmp_path / "partner_api"
    shutil.copytree(ROOT / "partner_api", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".env").write_text("WEB_BIND=127.0.0.1:4711\nWEB_WORKERS=3\nWEB_THREADS=5\nWEB_PINNED=yes\n")
    code = (
        "from partner_api import gunicorn_conf as c; "
        "print(c.bind, c.workers, c.threads, c._IS_PINNED, c.__file__)"
    )
    env = {**os.environ, "WEB_THREADS": "7"}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["127.0.0.1:4711", "3", "7", "True", str(copy / "gunicorn_conf.py")]


def test_what_a_running_stack_left_stands_in_place_of_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    """Whoever calls `manage.py` beside a demo means the demo, not what the file next to the code is for."""
    run_dir = tmp_path / "var" / "run"
    run_dir.mkdir(parents=True)
    (run_dir / "local.env").write_text("A_SERVER=the stack's\n")
    (tmp_path / ".env").write_text("A_SERVER=the file's\nA_BUCKET=the file's\n")
    monkeypatch.delenv("VAR_DIR")

    def read() -> tuple[Path | None, str | None, str | None]:
        for name in ("A_SERVER", "A_BUCKET"):
            monkeypatch.delenv(name, raising=False)
        found = read_files(tmp_path)
        return found, os.environ.get("A_SERVER"), os.environ.get("A_BUCKET")

    try:
        with (run_dir / "lock").open("w") as lock:
            assert read() == (tmp_path / ".env", "the file's", "the file's"), "nothing runs yet"
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert read() == (None, "the stack's", None)
        assert read() == (tmp_path / ".env", "the file's", "the file's"), "it was killed"
    finally:
        for name in ("A_SERVER", "A_BUCKET"):
            os.environ.pop(name, None)


def test_what_is_right_is_read(monkeypatch: Any) -> None:
    monkeypatch.setenv("SOME_PORTS", "1, 2")
    assert Env().ints("SOME_PORTS", default=[3]) == [1, 2]
    assert Env().floats("SOME_PAUSES", default=[0, 0.5]) == [0.0, 0.5]
    assert Env().choice("SOME_KIND", ("a", "b"), default="b") == "b"
    monkeypatch.setenv("A_FLAG", "Yes")
    monkeypatch.setenv("NETWORKS", "10.0.0.0/8, ::1/128")
    assert Env().bool("A_FLAG") is True
    assert [str(one) for one in Env().networks("NETWORKS")] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("DATABASE_URLS=x", "DATABASE_URLS in .env is no setting; DATABASE_URL is one"),
        ("export SECRET_KEYS_FILE=x", "SECRET_KEYS_FILE in .env is no setting"),
        ("QUITE_ANOTHER=x", "QUITE_ANOTHER in .env is no setting$"),
    ],
)
def test_a_misspelt_name_in_the_file_is_refused(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"# a comment\nDATABASE_URL=x\nSECRET_KEY_FILE=/x\nWEB_BIND=x\n{line}\n")
    env = Env()
    env.known |= {"DATABASE_URL", "SECRET_KEY"}
    with pytest.raises(ImproperlyConfigured, match=says):
        env.refuse_misspelt(file)


def test_a_file_of_known_names_is_taken(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text((ROOT / ".env.example").read_text())
    import partner_api.settings

    partner_api.settings.env.refuse_misspelt(file)
    partner_api.settings.env.refuse_misspelt(tmp_path / "absent")


@pytest.mark.parametrize("what", ["manage", "web"])
def test_a_misspelt_variable_is_told_of_at_the_start_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setitem(START, "web", [*START["web"], "--check-config"])
    started = run(what, DEFAULT_RATE_LIMT_PER_MINUTE="top-secret", STRIPE_WEBHOOK_SECRET_FILE="/top-secret")
    assert started.returncode == 0, started.stderr
    lines = [json.loads(line) for line in started.stderr.splitlines() if "setting_misspelt" in line]
    assert [(line["level"], line["name"], line["did_you_mean"]) for line in lines] == [
        ("warning", "DEFAULT_RATE_LIMT_PER_MINUTE", "DEFAULT_RATE_LIMIT_PER_MINUTE"),
        ("warning", "STRIPE_WEBHOOK_SECRET_FILE", "STRIPE_WEBHOOK_SECRETS_FILE"),
    ]
    assert "top-secret" not in started.stdout + started.stderr


def test_an_environment_without_slips_says_nothing() -> None:
    assert "setting_misspelt" not in run("manage").stderr


# What shells, containers, Kubernetes, CI and SDKs put there.
ORDINARY = """
    PATH HOME USER SHELL LANG LC_ALL PWD OLDPWD TERM TZ TMPDIR HOSTNAME LOGNAME MAIL EDITOR SHLVL _ DISPLAY
    PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONHASHSEED VIRTUAL_ENV PIP_NO_CACHE_DIR
    DJANGO_SETTINGS_MODULE GUNICORN_CMD_ARGS CELERY_CONFIG_MODULE PORTS DEBUGGER VERSION NODE_ENV CI
    KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_PORT_443_TCP_ADDR POD_NAME POD_IPS POD_UID
    REDIS_HOST REDIS_PORT REDIS_SERVICE_HOST REDIS_PORT_6379_TCP REDIS_PASSWORD REDIS_TLS_URL
    HOST_IP WEB_PORT WEB_SERVICE_HOST WEB_SERVICE_PORT SANDBOX_SERVICE_HOST SANDBOX_PORT POSTGRES_PASSWORD
    DATABASE_HOST DATABASE_NAME DATABASE_PASSWORD PGHOST PGPASSWORD PGSSLMODE
    AWS_REGION AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_WEB_IDENTITY_TOKEN_FILE
    AWS_ROLE_ARN SENTRY_RELEASE SENTRY_ENVIRONMENT OTEL_SERVICE_NAME OTEL_EXPORTER_OTLP_ENDPOINT
    HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    GITHUB_ACTIONS GITHUB_SERVER_URL RUNNER_TEMP SECRET_NAME S3_ACCESS_KEY EMAIL_HOST EMAIL_HOST_PASSWORD
"""


def test_what_is_for_others_is_left_alone() -> None:
    import partner_api.settings

    env = partner_api.settings.env
    assert env.misspelt(ORDINARY.split()) == []
    assert env.misspelt([*env.known, *(f"{name}_FILE" for name in env.known), "WEB_BIND", "PORT"]) == []


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("REDIS_URI", "REDIS_URL"),
        ("SECRET_KEYS", "SECRET_KEY"),
        ("ALOWED_HOSTS", "ALLOWED_HOSTS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("WEB_WORKER", "WEB_WORKERS"),
        ("WEBHOOK_KEPT_DAYS", "WEBHOOKS_KEPT_DAYS"),
        ("FIELD_ENCRYPTION_KEY", "FIELD_ENCRYPTION_KEYS"),
    ],
)
def test_a_slip_is_found(slip: str, meant: str) -> None:
    import partner_api.settings

    assert partner_api.settings.env.misspelt(["PATH", slip]) == [(slip, meant)]
