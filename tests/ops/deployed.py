"""What deploy/ says, read as Docker and Kubernetes read it."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "deploy" / "compose.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
PROMETHEUS = ROOT / "deploy" / "prometheus"
DOCKERFILE = ROOT / "Dockerfile"


def settings_known() -> set[str]:
    """The names in the table of docs/configuration.md, which another test holds to the code."""
    table = (ROOT / "docs" / "configuration.md").read_text().partition("| setting |")[2]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    return set(re.findall(r"`([A-Z0-9_]+)`", first_cells))


def compose_text() -> str:
    """With the variables filled in, as docker does."""
    text = COMPOSE.read_text()
    text = re.sub(r"\$\{PORT:-(\d+)\}", r"\1", text)
    return re.sub(r"\$\{\w+(?::[?-][^}]*)?\}", "x", text)


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose_text())["services"]
    return found


def objects(folder: Path = KUBERNETES) -> list[Any]:
    """Of a kustomization, in its order; every file that lies beside it must be a part of it."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    listed = kustomization["resources"]
    assert set(listed) == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    return [one for name in listed for one in yaml.safe_load_all((folder / name).read_text())]


def config_map() -> dict[str, str]:
    found: dict[str, str] = next(one for one in objects() if one["kind"] == "ConfigMap")["data"]
    return found


def deployments() -> dict[str, Any]:
    """Each Deployment's `spec`, by name."""
    return {one["metadata"]["name"]: one["spec"] for one in objects() if one["kind"] == "Deployment"}


def pods() -> dict[str, Any]:
    """Each Deployment's and Job's pod, by its part."""
    return {
        one["metadata"]["labels"]["part"]: one["spec"]["template"]["spec"]
        for one in objects()
        if one["kind"] in {"Deployment", "Job"}
    }


def environment_of(container: Any) -> dict[str, Any]:
    """What a container is given by value, the ConfigMap included."""
    by_map = any("configMapRef" in one for one in container.get("envFrom", []))
    own = {one["name"]: one.get("value") for one in container.get("env", [])}
    return {**(config_map() if by_map else {}), **own}
