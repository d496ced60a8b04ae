"""The files that containers are made from: what they promise, as far as can be told without Docker."""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement

from app.security.middleware import MAX_BODY_BYTES, MAX_URL_BYTES
from app.server.lifecycle import FLUSH_SECONDS
from app.settings import ServerSettings

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
VERSION = re.compile(r"[^:@]+:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9-]+)?")


def default(text: str) -> str:
    """A value of docker-compose.yml where the environment says nothing."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def set_in_nginx(name: str) -> str:
    """What deploy/nginx.conf sets a directive to."""
    [found] = re.findall(rf"^\s*{name} ([^;]+);", NGINX, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["pids_limit"] > 0
    assert re.fullmatch("[0-9]+[mg]", service["mem_limit"])
    assert "cpus" not in service
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all(mount.endswith(":ro") for mount in service["volumes"] if mount.startswith("."))


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_proxy_is_for_other_machines(name: str) -> None:
    published = [default(port) for port in SERVICES[name]["ports"]]
    assert name == "proxy" or all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        assert name == "soliloquy" or VERSION.fullmatch(service["image"]), service["image"]
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases[1:] == ["base", "base"]
    assert VERSION.fullmatch(bases[0])


def test_a_plain_start_needs_no_other_image() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["soliloquy"]
    assert GPU["services"].keys() == {"soliloquy"}


def test_every_setting_can_be_given_to_the_container() -> None:
    settings = {f"SOLILOQUY_{name.upper()}" for name in ServerSettings.model_fields}
    given = {name for name in SERVICES["soliloquy"]["environment"] if name.startswith("SOLILOQUY_")}
    assert given == settings - {"SOLILOQUY_HOST", "SOLILOQUY_PORT"}
    in_image = set(re.findall(r"SOLILOQUY_\w+(?==)", DOCKERFILE))
    assert in_image <= settings


def test_streams_may_end_before_the_container_is_killed() -> None:
    settings = ServerSettings()
    seconds = {"s": 1, "m": 60}
    for name in ("soliloquy", "proxy"):
        grace = SERVICES[name]["stop_grace_period"]
        assert int(grace[:-1]) * seconds[grace[-1]] >= settings.drain_seconds + FLUSH_SECONDS + 5


def test_the_server_believes_the_proxy_and_nobody_else() -> None:
    [trusted] = default(SERVICES["soliloquy"]["environment"]["SOLILOQUY_TRUSTED_PROXIES"]).split(",")
    address = ipaddress.ip_address(trusted)
    assert SERVICES["proxy"]["networks"]["default"]["ipv4_address"] == trusted
    [network] = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert address in ipaddress.ip_network(network["subnet"])
    assert address not in ipaddress.ip_network(network["ip_range"])  # which others get theirs from


def test_the_proxy_fits_the_server() -> None:
    assert set_in_nginx("client_max_body_size") == f"{MAX_BODY_BYTES // 1024}k"
    assert int(set_in_nginx("large_client_header_buffers").split()[1].rstrip("k")) * 1024 > MAX_URL_BYTES
    kept = int(set_in_nginx("keepalive_timeout").rstrip("s"))
    assert kept < ServerSettings().idle_timeout  # else it may ask on a connection that the server just closed
    assert "text/event-stream" not in set_in_nginx("gzip_types")
    assert set_in_nginx("proxy_buffering") == "off"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for mount in SERVICES[name]["volumes"]:
        source = mount.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount


def test_the_lock_names_a_fitting_version_of_everything_asked_for() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["tracing"]:
        asked = Requirement(text)
        assert asked.specifier.contains(locked[asked.name.lower()]), text
    assert all("+" not in version for version in locked.values())  # torch's CPU build and its CUDA build


def test_what_is_copied_into_the_image_is_sent_to_the_build() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_is_not_root_by_number() -> None:
    [user] = re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0


def test_prometheus_and_grafana_look_for_services_that_are_there() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    [job] = prometheus["scrape_configs"]
    [found] = job["dns_sd_configs"]
    assert found["names"] == ["soliloquy"]  # every replica has it
    assert found["port"] == ServerSettings().port
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "soliloquy.yml").read_text())["providers"]
    folders = dict(mount.split(":")[:2][::-1] for mount in SERVICES["grafana"]["volumes"])
    assert folders[provider["options"]["path"]] == "./deploy/grafana/dashboards"
