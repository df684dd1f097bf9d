"""What is deployed by: files that their tools accept, and that say what the code needs."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"


def settings_known() -> set[str]:
    return set(re.findall(r"`([A-Z0-9_]+)`", (ROOT / "docs" / "configuration.md").read_text()))


def compose_text() -> str:
    """With the variables filled in, as docker does."""
    text = (ROOT / "deploy" / "compose.yml").read_text()
    text = re.sub(r"\$\{PORT:-(\d+)\}", r"\1", text)
    return re.sub(r"\$\{\w+(?::[?-][^}]*)?\}", "x", text)


def validate_compose(text: str) -> None:
    options = compose_spec.PyOptions()
    options.apply_merge = True
    options.from_yaml(text).validate()


def objects() -> list[Any]:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert set(listed) == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    return [one for name in listed for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def workloads() -> list[tuple[str, Any]]:
    return [
        (one["metadata"]["name"], one["spec"]["template"]["spec"])
        for one in objects()
        if one["kind"] in {"Deployment", "Job"}
    ]


def test_the_compose_file_is_valid() -> None:
    validate_compose(compose_text())
    services = yaml.safe_load(compose_text())["services"]
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            assert needed in services, f"{name} needs {needed}"
    assert {
        "postgres",
        "redis",
        "web",
        "worker",
        "beat",
        "sandbox",
        "prometheus",
        "grafana",
    } <= services.keys()


def test_the_check_of_compose_files_can_fail() -> None:
    for right, wrong in (("restart: unless-stopped", "restart: sometimes"), ("read_only:", "read_onyl:")):
        with pytest.raises(ValueError, match=r"unknown variant|extension key"):
            validate_compose(compose_text().replace(right, wrong, 1))


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "deploy" / "compose.yml").read_text()
    for name, default in re.findall(r"\$\{(\w*(?:SECRET|PASSWORD|TOKEN|KEYS?)\w*):-([^}]*)\}", text):
        assert default == "", name


def test_compose_sets_only_settings_that_exist() -> None:
    services = yaml.safe_load(compose_text())["services"]
    for name in ("migrate", "web", "worker", "beat", "sandbox"):
        assert set(services[name]["environment"]) <= settings_known(), name


def test_every_kubernetes_object_is_valid() -> None:
    version = kubernetes_validate.latest_version()
    found = objects()
    for one in found:
        if one["kind"] != "Kustomization":
            kubernetes_validate.validate(one, version, strict=True)
    kinds = {one["kind"] for one in found}
    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Job", "NetworkPolicy"} <= kinds


def test_the_check_of_kubernetes_objects_can_fail() -> None:
    deployment = next(one for one in objects() if one["kind"] == "Deployment")
    deployment["spec"]["replcas"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_it_together() -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=True
    ).stdout
    images = set(re.findall(r"image: (\S+)", made))
    assert images == {"partner-api:0.1.0"}
    assert {one["metadata"].get("namespace", "partner-api") for one in yaml.safe_load_all(made)} == {
        "partner-api"
    }


@pytest.mark.parametrize(("name", "pod"), workloads(), ids=lambda one: one if isinstance(one, str) else "")
def test_every_pod_is_shut_in(name: str, pod: Any) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]
        # Secrets by reference only.
        assert all("value" not in one or "SECRET" not in one["name"] for one in container.get("env", []))
        if name != "migrate":
            assert "livenessProbe" in container


def test_the_orchestrator_waits_longer_than_gunicorn() -> None:
    from partner_api import gunicorn_conf

    web = dict(workloads())["web"]
    assert web["terminationGracePeriodSeconds"] > gunicorn_conf.graceful_timeout + 10
    service = yaml.safe_load(compose_text())["services"]["web"]
    assert int(service["stop_grace_period"].removesuffix("s")) > gunicorn_conf.graceful_timeout


def test_kubernetes_sets_only_settings_that_exist() -> None:
    config = next(one for one in objects() if one["kind"] == "ConfigMap")
    names = set(config["data"])
    for _, pod in workloads():
        names |= {one["name"] for container in pod["containers"] for one in container.get("env", [])}
    assert names <= settings_known()


def test_partners_webhooks_get_out_on_the_ports_that_endpoints_may_have() -> None:
    """And on those, from the pods that deliver them: what others call is https."""
    from django.conf import settings

    config = next(one for one in objects() if one["kind"] == "ConfigMap")["data"]
    given = config.get("WEBHOOKS_PORTS")
    allowed = set(map(int, given.split(","))) if given else set(settings.WEBHOOKS_PORTS)
    assert _ports_to_everywhere("worker-webhooks") == allowed
    for part in ("web", "worker", "beat", "migrate"):
        assert _ports_to_everywhere(part) == {443}
    assert _ports_to_everywhere("sandbox") == set()


def _ports_to_everywhere(part: str) -> set[int]:
    """Where the policies let the pods of a part go, on the internet."""
    rules = [
        rule
        for one in objects()
        if one["kind"] == "NetworkPolicy" and _is_selected(part, one["spec"]["podSelector"])
        for rule in one["spec"].get("egress", [])
    ]
    return {
        port["port"]
        for rule in rules
        if any(peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for peer in rule.get("to", []))
        for port in rule["ports"]
    }


def _is_selected(part: str, selector: Any) -> bool:
    labels = selector.get("matchLabels", {})
    listed = [one["values"] for one in selector.get("matchExpressions", []) if one["key"] == "part"]
    return labels.get("part", part) == part and all(part in values for values in listed)


def _queues(commands: list[list[str]]) -> list[str]:
    return [name for one in commands if "worker" in one for name in one[one.index("-Q") + 1].split(",")]


def test_each_queue_has_one_kind_of_worker() -> None:
    """And nobody's banner shows the broker's password."""
    from django.conf import settings

    everywhere = sorted(queue.name for queue in settings.CELERY_TASK_QUEUES)
    services = yaml.safe_load(compose_text())["services"].values()
    pods = [container for _, pod in workloads() for container in pod["containers"]]
    image = re.findall(r"^#   \w+ +(python -m celery .*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for commands in (
        [one["command"] for one in services if "celery" in one.get("command", [])],
        [one["command"] for one in pods if "celery" in one.get("command", [])],
        [line.split() for line in image],
    ):
        assert sorted(_queues(commands)) == everywhere
        assert all("-q" in one[: one.index("worker" if "worker" in one else "beat")] for one in commands)


def test_the_request_log_is_written_where_it_outlives_its_process() -> None:
    services = yaml.safe_load(compose_text())["services"]
    for name in ("web", "worker", "worker-webhooks"):
        spool = services[name]["environment"]["USAGE_SPOOL_DIR"]
        assert f"spool:{spool}" in services[name]["volumes"]
    config = next(one for one in objects() if one["kind"] == "ConfigMap")["data"]
    pods = dict(workloads())
    for name in ("web", "worker", "worker-webhooks"):
        [container] = pods[name]["containers"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volume = next(
            one for one in pods[name]["volumes"] if one["name"] == mounts[config["USAGE_SPOOL_DIR"]]
        )
        # A folder in memory would be lost with its machine's every restart, and counts as the pod's memory.
        assert volume["emptyDir"].get("medium") is None


def test_the_image_is_not_roots_and_has_no_tests() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"tests", ".git", ".env", "var"} <= set(ignored)


@pytest.mark.parametrize(
    "command", re.findall(r"python (manage\.py \w+|-m celery [^\n]*)", (ROOT / "Dockerfile").read_text())
)
def test_the_images_commands_exist(command: str) -> None:
    if command.startswith("manage.py"):
        name = command.removeprefix("manage.py ")
        assert load_command_class(get_commands()[name], name)
    else:
        assert "-A partner_api" in command


def test_dashboards_have_ids_of_their_own() -> None:
    boards = [json.loads(path.read_text()) for path in (ROOT / "deploy" / "grafana").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) == 3
    for board in boards:
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
