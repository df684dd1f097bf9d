"""deploy/compose.yml: a file that Docker accepts, and that says what the code needs."""

import re

import compose_spec
import pytest
from django.conf import settings

from partner_api import gunicorn_conf
from tests.ops.deployed import COMPOSE, DOCKERFILE, compose_text, pods, services, settings_known

WORKERS = ("worker", "worker-upkeep", "worker-webhooks")
OURS = ("migrate", "web", *WORKERS, "beat")
# Credentials of AWS are read by its own library.
OF_AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def validate_compose(text: str) -> None:
    options = compose_spec.PyOptions()
    options.apply_merge = True
    options.from_yaml(text).validate()


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_file_is_valid() -> None:
    validate_compose(compose_text())
    found = services()
    for name, service in found.items():
        for needed in service.get("depends_on", {}):
            assert needed in found, f"{name} needs {needed}"
    assert {"postgres", "redis", "sandbox", "prometheus", "alertmanager", "grafana", *OURS} <= found.keys()


def test_the_check_can_fail() -> None:
    for right, wrong in (("restart: unless-stopped", "restart: sometimes"), ("read_only:", "read_onyl:")):
        with pytest.raises(ValueError, match=r"unknown variant|extension key"):
            validate_compose(compose_text().replace(right, wrong, 1))


def test_no_secret_has_a_default() -> None:
    for name, default in re.findall(
        r"\$\{(\w*(?:SECRET|PASSWORD|TOKEN|KEYS?)\w*):-([^}]*)\}", COMPOSE.read_text()
    ):
        assert default == "", name


def test_every_setting_can_be_given() -> None:
    """What it does not name, an operator would set in deploy/.env for nothing."""
    [block] = re.findall(r"^ENV (PATH=(?:[^\\\n]|\\\n)*)", DOCKERFILE.read_text(), re.MULTILINE)
    of_the_image = set(re.findall(r"(\w+)=", block))
    # Refused in production; of a pod; of gunicorn's place in the image; and what is looked for in VAR_DIR.
    fixed = {"DEBUG", "POD_IP", "WEB_BIND", "STATIC_ROOT", "HEARTBEAT_DIR"}
    of_workers = {"WORKER_METRICS_PORT", "WORKER_STOP_SECONDS"}
    known = settings_known() - fixed - (of_the_image - {"USAGE_SPOOL_DIR"})
    found = services()
    for name in OURS:
        given = set(found[name]["environment"])
        assert given - OF_AWS - of_workers == known - of_workers, name
        assert (of_workers <= given) is (name in WORKERS)
        # Named without a value and not given, it would take away what the image says.
        assert not {one for one in given & of_the_image if found[name]["environment"][one] is None}


def test_nobody_is_given_what_is_not_for_them() -> None:
    """Above all the role that changes tables is not the app's."""
    for name in ("web", *WORKERS, "beat", "sandbox"):
        assert "env_file" not in services()[name]
        assert not {one for one in services()[name]["environment"] if one.endswith("_PASSWORD")}
    text = compose_text()
    assert text.count("partner_api_migration:") == 1
    sandbox = services()["sandbox"]
    assert set(sandbox["environment"]) <= settings_known()
    assert [name for name, value in sandbox["environment"].items() if value == "x"] == ["SANDBOX_TOKEN"]
    assert sandbox["volumes"] == []


def test_each_process_is_given_the_time_that_it_takes_to_stop() -> None:
    found = services()
    assert seconds(found["web"]["stop_grace_period"]) > gunicorn_conf.graceful_timeout
    for name in WORKERS:
        stop_seconds = float(found[name]["environment"]["WORKER_STOP_SECONDS"])
        assert seconds(found[name]["stop_grace_period"]) >= stop_seconds + 20
        assert stop_seconds > settings.MAIN_API_ATTEMPTS * settings.MAIN_API_READ_TIMEOUT_SECONDS


def test_the_database_is_there_only_once_its_roles_are() -> None:
    """The server of the very first start, which makes them, answers on its socket only."""
    assert "127.0.0.1" in services()["postgres"]["healthcheck"]["test"]
    assert services()["migrate"]["restart"] == "on-failure"


def test_all_processes_together_find_room_in_postgres() -> None:
    [limit] = [
        int(one.removeprefix("max_connections="))
        for one in services()["postgres"]["command"]
        if one.startswith("max_connections=")
    ]
    pool = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    processes = gunicorn_conf.workers + len(WORKERS) * settings.CELERY_WORKER_CONCURRENCY + 1
    assert processes * pool + 20 <= limit


def test_the_request_log_is_written_where_it_outlives_its_process() -> None:
    for name in ("web", *WORKERS):
        service = services()[name]
        assert f"spool:{service['environment']['USAGE_SPOOL_DIR']}" in service["volumes"]


def _queues(commands: list[list[str]]) -> list[str]:
    return [name for one in commands if "worker" in one for name in one[one.index("-Q") + 1].split(",")]


def test_each_queue_has_one_kind_of_worker() -> None:
    """Here, in Kubernetes and in the image's head. And nobody's banner shows the broker's password."""
    everywhere = sorted(queue.name for queue in settings.CELERY_TASK_QUEUES)
    in_pods = [container for pod in pods().values() for container in pod["containers"]]
    image = re.findall(r"^#   \w+ +(python -m celery .*)$", DOCKERFILE.read_text(), re.MULTILINE)
    for commands in (
        [one["command"] for one in services().values() if "celery" in one.get("command", [])],
        [one["command"] for one in in_pods if "celery" in one.get("command", [])],
        [line.split() for line in image],
    ):
        assert sorted(_queues(commands)) == everywhere
        assert all("-q" in one[: one.index("worker" if "worker" in one else "beat")] for one in commands)
        # What keeps house waits behind no deed.
        upkeep = [one for one in commands if settings.UPKEEP_QUEUE in one[-1].split(",")]
        assert [one[-1] for one in upkeep] == [settings.UPKEEP_QUEUE]
