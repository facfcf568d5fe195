"""The image and the compose file against the settings, the lock and what the ledger needs.

Neither is built or run here. These tests read them, because what nobody runs every day is what goes stale: a variable
that was renamed, a lock that moved, a Redis without its durability.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import settings
from service.local import redis as local_redis

_KNOWN_VARIABLES = {f"{settings.PREFIX}{name.upper()}" for name in settings.Settings.model_fields}
_NEW_FLAG_NAMES = {  # Redis 7 renamed them; the local stack uses the names that every version knows
    "hash-max-ziplist-entries": "hash-max-listpack-entries",
    "hash-max-ziplist-value": "hash-max-listpack-value",
}
_SHUTDOWN_SECONDS_MAX = 10  # docs/contracts.md 5


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    content = yaml.safe_load((repository / "deploy/compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def find_instructions(dockerfile: str, name: str) -> list[str]:
    return re.findall(rf"^{name}\s+(.+)$", dockerfile, re.MULTILINE)


def read_flags(command: list[str]) -> dict[str, str]:
    assert command[0] == "redis-server"
    pairs = zip(command[1::2], command[2::2], strict=True)
    return {name.removeprefix("--"): value for name, value in pairs}


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None, f"{text} is not in seconds"
    return int(match[1])


# --- the image


def test_the_image_is_built_in_stages_and_its_last_one_has_no_build_tools(dockerfile: str) -> None:
    stages = find_instructions(dockerfile, "FROM")
    assert len(stages) >= 2
    last = dockerfile.rpartition("\nFROM")[2]
    assert "pip" not in last
    assert "COPY --from=build" in last


def test_the_python_of_the_image_is_one_that_the_project_supports(dockerfile: str, project: dict[str, Any]) -> None:
    versions = {re.match(r"python:(\d+\.\d+)", stage) for stage in find_instructions(dockerfile, "FROM")}
    assert None not in versions
    (version,) = {match[1] for match in versions if match}
    lowest = project["project"]["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, lowest.split(".")))
    assert version == project["tool"]["mypy"]["python_version"], "what is type-checked is what runs"


def test_the_image_installs_exactly_what_the_locks_say(dockerfile: str, repository: Path) -> None:
    locks = re.findall(r"-r (\S+)", dockerfile)
    assert sorted(locks) == ["requirements/build.lock", "requirements/runtime.lock"]
    copied = " ".join(find_instructions(dockerfile, "COPY"))
    for lock in locks:
        assert (repository / lock).is_file()
        assert lock in copied
    installs = re.findall(r"pip install[^&]*", dockerfile)
    assert installs
    for install in installs:
        assert "--require-hashes --no-deps" in install or "--no-index" in install, install


def test_everything_that_the_image_copies_is_in_the_repository_and_let_through(
    dockerfile: str, repository: Path
) -> None:
    allowed = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[0] == "*", "what is not named stays out: credentials, data, history"
    for copy in find_instructions(dockerfile, "COPY"):
        if copy.startswith("--from"):
            continue
        for source in copy.split()[:-1]:
            assert (repository / source).exists(), source
            assert f"!{source}" in allowed or f"!{Path(source).parent}/*{Path(source).suffix}" in allowed, source


def test_the_service_runs_as_nobody_in_particular(dockerfile: str) -> None:
    (user,) = find_instructions(dockerfile, "USER")
    assert int(user) > 0
    assert dockerfile.index("\nUSER") < dockerfile.index("\nENTRYPOINT")


def test_the_image_starts_the_command_of_the_project(dockerfile: str, project: dict[str, Any]) -> None:
    (entry,) = find_instructions(dockerfile, "ENTRYPOINT")
    assert yaml.safe_load(entry)[0] in project["project"]["scripts"]
    assert find_instructions(dockerfile, "CMD")[-1] == '["serve"]'


def test_the_image_is_healthy_by_the_path_and_port_of_the_service(dockerfile: str) -> None:
    (port,) = find_instructions(dockerfile, "EXPOSE")
    assert f"APPORTION_HTTP_PORT={port}" in dockerfile
    assert f"http://127.0.0.1:{port}/health/live" in dockerfile


def test_every_variable_in_the_image_is_a_setting(dockerfile: str) -> None:
    named = set(re.findall(rf"{settings.PREFIX}[A-Z_]+", dockerfile))
    assert named
    assert named <= _KNOWN_VARIABLES


# --- the compose file


def test_every_variable_in_the_compose_file_is_a_setting_with_a_value_that_it_takes(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("topics", "apportion"):
        environment = compose["services"][name]["environment"]
        assert set(environment) <= _KNOWN_VARIABLES
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                assert isinstance(value, str), f"{variable}: a number in YAML is no text"
                patch.setenv(variable, value)
            settings.require_servers(settings.load_settings())


def test_the_service_finds_its_kafka_and_its_redis(compose: dict[str, Any]) -> None:
    environment = compose["services"]["apportion"]["environment"]
    host, _, port = environment["APPORTION_KAFKA_BOOTSTRAP_SERVERS"].partition(":")
    assert host in compose["services"]
    kafka = compose["services"][host]["environment"]
    assert f"PLAINTEXT://{host}:{port}" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    redis_host = re.fullmatch(r"redis://(\w+):6379/0", environment["APPORTION_REDIS_URL"])
    assert redis_host is not None
    assert redis_host[1] in compose["services"]


def test_redis_is_started_with_every_flag_that_the_ledger_needs(compose: dict[str, Any]) -> None:
    needed = {_NEW_FLAG_NAMES.get(name, name): value for name, value in local_redis.LEDGER_FLAGS.items()}
    assert read_flags(compose["services"]["redis"]["command"]) == needed


def test_what_kafka_and_redis_know_outlives_their_containers(compose: dict[str, Any]) -> None:
    for name in ("kafka", "redis"):
        (volume,) = compose["services"][name]["volumes"]
        assert volume.partition(":")[0] in compose["volumes"]
    assert compose["services"]["kafka"]["environment"]["KAFKA_LOG_DIRS"] in compose["services"]["kafka"]["volumes"][0]


def test_kafka_is_the_version_that_the_tests_run_on_and_makes_no_topics_by_itself(
    compose: dict[str, Any], repository: Path
) -> None:
    pom = (repository / "service/local/pom.xml").read_text(encoding="utf-8")
    version = re.search(r"kafka_2\.13</artifactId>\s*<version>([^<]+)<", pom)
    assert version is not None
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{version[1]}"
    assert compose["services"]["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_service_waits_for_topics_and_redis_and_is_given_time_to_finish(compose: dict[str, Any]) -> None:
    service = compose["services"]["apportion"]
    assert service["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert compose["services"]["topics"]["command"] == ["topics", "create"]
    assert seconds(service["stop_grace_period"]) > _SHUTDOWN_SECONDS_MAX


def test_nothing_is_open_beyond_this_host(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
