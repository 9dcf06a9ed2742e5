"""The deployment files, checked as far as can be without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from wpa.adapters.nats.server import find_binary
from wpa.settings import Settings

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "nats").rglob("*.conf"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nats_server_accepts_the_configuration(path: Path, tmp_path: Path) -> None:
    env = {**os.environ, "WPA_WORKER_PASSWORD": "a", "ACME_PASSWORD": "b"}
    text = path.read_text().replace("/data/jetstream", str(tmp_path / "js")).replace("./.wpa", str(tmp_path))
    copy = tmp_path / path.name
    copy.write_text(text)
    done = subprocess.run(
        [find_binary(), "-t", "-c", str(copy)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr


def test_there_are_configurations_for_dev_durable_cluster_and_accounts() -> None:
    names = {str(path.relative_to(ROOT / "nats")) for path in CONFIGS}
    assert {"dev.conf", "durable.conf", "accounts.conf", "cluster/n1.conf", "cluster/n3.conf"} <= names


def test_no_python_file_in_nats_shadows_the_client() -> None:
    assert not list((ROOT / "nats").rglob("*.py"))


def test_compose_has_nats_and_two_workers_that_wait_for_it() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"nats", "worker-1", "worker-2"}
    for name in ("worker-1", "worker-2"):
        assert services[name]["depends_on"]["nats"]["condition"] == "service_healthy"
    assert "healthcheck" in services["nats"]


def test_compose_itself_accepts_the_file() -> None:
    """Where there is a compose command to ask; without one, the shape above is what is checked."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            not shutil.which(command[0])
            or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
        ):
            continue
        done = subprocess.run(
            [*command, "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_compose_runs_the_server_that_wpa_is_tested_with() -> None:
    image = COMPOSE["services"]["nats"]["image"]
    found = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert image == f"nats:{'.'.join(found.strip().rpartition('v')[2].split('.')[:2])}-alpine"


def test_the_health_check_asks_where_the_configuration_listens() -> None:
    nats = COMPOSE["services"]["nats"]
    address = re.search(r'http: "(.+)"', (ROOT / "nats" / "durable.conf").read_text())
    assert address is not None
    assert f"http://{address[1]}/healthz" in nats["healthcheck"]["test"][-1]
    assert any(mount.startswith("./nats/durable.conf:") for mount in nats["volumes"])


def test_compose_names_only_what_exists() -> None:
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount
        for name in service.get("environment", {}):
            known = {f"WPA_{field.upper()}" for field in Settings.model_fields} | {
                "WPA_NATS_URL",
                "WPA_SHOP_DB",
            }
            assert name in known, name


def test_compose_gives_workers_longer_than_their_grace() -> None:
    worker = COMPOSE["services"]["worker-1"]
    assert int(worker["stop_grace_period"].rstrip("s")) > float(worker["environment"]["WPA_GRACE_S"])


def test_the_image_lets_its_user_write_where_compose_mounts() -> None:
    """A named volume takes its owner from the image; without the folder it would be root's."""
    text = (ROOT / "Dockerfile").read_text()
    for mount in COMPOSE["services"]["worker-1"]["volumes"]:
        assert f"install -d -o wpa {mount.split(':')[1]}" in text


def test_the_dockerfile_copies_what_exists_and_does_not_run_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
