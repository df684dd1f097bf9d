"""deploy/kubernetes: files that their tools accept, and that say what the code needs."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.conf import settings

from partner_api import gunicorn_conf
from tests.ops.deployed import (
    KUBERNETES,
    ROOT,
    config_map,
    deployments,
    environment_of,
    objects,
    pods,
    settings_known,
)

NEEDS_KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
# Those that work on rows; the sandbox has no database.
ON_THE_DATABASE = ("web", "worker", "worker-upkeep", "worker-webhooks", "beat")


def containers(pod: Any) -> list[Any]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def kustomized(folder: Path) -> list[Any]:
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(made.stdout))


def test_every_object_is_valid() -> None:
    version = kubernetes_validate.latest_version()
    found = objects()
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)
    kinds = {one["kind"] for one in found}
    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Job", "NetworkPolicy"} <= kinds


def test_the_check_of_objects_can_fail() -> None:
    deployment = next(one for one in objects() if one["kind"] == "Deployment")
    deployment["spec"]["replcas"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@NEEDS_KUBECTL
def test_kustomize_puts_it_together() -> None:
    made = kustomized(KUBERNETES)
    images = {
        container["image"]
        for one in made
        if one["kind"] in {"Deployment", "Job"}
        for container in containers(one["spec"]["template"]["spec"])
    }
    assert images == {"partner-api:0.1.0"}
    assert {one["metadata"].get("namespace", "partner-api") for one in made} == {"partner-api"}


@NEEDS_KUBECTL
def test_each_release_has_a_job_of_its_own(tmp_path: Path) -> None:
    """A Job can't be changed: applied again under the last one's name, it would fail the release."""
    release = tmp_path / "release"
    shutil.copytree(KUBERNETES, release)
    file = release / "kustomization.yaml"
    file.write_text(
        file.read_text().replace('newTag: "0.1.0"', "newName: r.example.com/api\n    newTag: 1.2.3")
    )
    names = [
        one["metadata"]["name"]
        for folder in (KUBERNETES, release)
        for one in kustomized(folder)
        if one["kind"] == "Job"
    ]
    assert names == ["migrate-0.1.0", "migrate-1.2.3"]


@pytest.mark.parametrize("name", ON_THE_DATABASE)
def test_no_new_code_runs_before_its_migration(name: str) -> None:
    """Everything is applied at once; a pod waits until its own version's migrations are through."""
    pod = pods()[name]
    [first] = pod["initContainers"]
    assert first["image"] == pod["containers"][0]["image"]
    assert first["command"] == ["python", "manage.py", "migrate", "--check", "-v", "0"]
    # With the app's role, as what it waits for.
    assert first["envFrom"] == pod["containers"][0]["envFrom"]
    assert "env" not in first


@pytest.mark.parametrize("name", pods())
def test_every_pod_is_shut_in(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]
    for container in pod["containers"]:
        assert "livenessProbe" in container or name == "migrate"


@pytest.mark.parametrize("name", pods())
def test_secrets_are_given_by_reference(name: str) -> None:
    for container in containers(pods()[name]):
        for one in container.get("env", []):
            if re.search("SECRET|TOKEN|KEYS|PASSWORD", one["name"]):
                assert one.get("value", "none") == "none", one["name"]


def test_the_sandbox_is_given_its_own_token_and_no_other_secret() -> None:
    [container] = pods()["sandbox"]["containers"]
    assert "envFrom" not in container
    secrets = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one]
    assert secrets == [{"name": "partner-api", "key": "SANDBOX_TOKEN"}]


def test_the_orchestrator_waits_longer_than_each_process_takes_to_stop() -> None:
    found = pods()
    assert found["web"]["terminationGracePeriodSeconds"] > gunicorn_conf.graceful_timeout + 10
    for name in ("worker", "worker-upkeep", "worker-webhooks"):
        [container] = found[name]["containers"]
        stop_seconds = float(environment_of(container)["WORKER_STOP_SECONDS"])
        assert found[name]["terminationGracePeriodSeconds"] >= stop_seconds + 20
        # What is being rendered gets the time that its call may take, each time it is made.
        calls = settings.MAIN_API_ATTEMPTS * settings.MAIN_API_READ_TIMEOUT_SECONDS
        assert stop_seconds > calls


def test_it_sets_only_settings_that_exist() -> None:
    names = set(config_map())
    for pod in pods().values():
        names |= {one["name"] for container in containers(pod) for one in container.get("env", [])}
    assert names <= settings_known()


def test_partners_webhooks_get_out_on_the_ports_that_endpoints_may_have() -> None:
    """And on those, from the pods that deliver them: what others call is https."""
    given = config_map().get("WEBHOOKS_PORTS")
    allowed = set(map(int, given.split(","))) if given else set(settings.WEBHOOKS_PORTS)
    assert _ports_to_everywhere("worker-webhooks") == allowed
    for part in ("web", "worker", "worker-upkeep", "beat", "migrate"):
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


def test_the_request_log_is_written_where_it_outlives_its_process() -> None:
    for name in ("web", "worker", "worker-upkeep", "worker-webhooks"):
        pod = pods()[name]
        [container] = pod["containers"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volume = next(one for one in pod["volumes"] if one["name"] == mounts[config_map()["USAGE_SPOOL_DIR"]])
        # A folder in memory would be lost with its machine's every restart, and counts as the pod's memory.
        assert volume["emptyDir"].get("medium") is None


def test_all_pods_together_find_room_in_postgres() -> None:
    """Each pool at its largest, every autoscaler at its ceiling, and a roll-out under way."""
    ceilings = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["maxReplicas"]
        for one in objects()
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    page = (ROOT / "docs" / "deploy.md").read_text()
    largest = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    total = 0
    for name in ON_THE_DATABASE:
        spec = deployments()[name]
        [container] = spec["template"]["spec"]["containers"]
        given = environment_of(container)
        surge = spec["strategy"].get("rollingUpdate", {}).get("maxSurge", 0)
        count = ceilings.get(name, spec["replicas"]) + surge
        default = gunicorn_conf.workers if name == "web" else settings.CELERY_WORKER_CONCURRENCY
        processes = 1 if name == "beat" else int(given.get("WORKER_CONCURRENCY", default))
        pool = int(given.get("DATABASE_POOL_SIZE", largest))
        total += count * processes * pool
        assert f"| `{name}` | {count} | {processes} | {pool} | {count * processes * pool} |" in page
    said = re.search(r"`max_connections` of Postgres\*\* is (\d+)", page)
    assert said is not None
    # /readyz and /metrics have connections of their own, and so have migrations, people and backups.
    assert total + 3 * ceilings["web"] + 20 <= int(said[1])
