"""Where settings come from, and that a wrong one is one sentence which names its variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service import settings


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(f"APPORTION_{name}", value)
    with pytest.raises(settings.SettingsError) as raised:
        settings.load_settings()
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stack.env"
    file.write_text("APPORTION_GROUP_ID=of-the-file\nAPPORTION_TOPIC_PREFIX=file.\n", encoding="utf-8")
    monkeypatch.setenv("APPORTION_GROUP_ID", "of-the-environment")
    loaded = settings.load_settings(file)
    assert (loaded.group_id, loaded.topic_prefix, loaded.shards) == ("of-the-environment", "file.", 64)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_REDIS_URL", "")
    monkeypatch.setenv("APPORTION_HTTP_PORT", "")
    assert (settings.load_settings().redis_url, settings.load_settings().http_port) == (None, 8080)


def test_every_documented_variable_is_a_setting_with_its_documented_default(repository: Path) -> None:
    documented = {}
    for page in ("contracts.md", "running.md"):
        text = (repository / "docs" / page).read_text(encoding="utf-8")
        for names, defaults in re.findall(r"^\| (`APPORTION_[^|]+) \| ([^|]+) \|", text, re.MULTILINE):
            variables = re.findall(r"`APPORTION_(\w+)`", names)
            values = [part.strip(" `") for part in defaults.split(",")]
            documented.update(dict(zip(variables, values * len(variables), strict=False)))
    fields = settings.Settings.model_fields
    assert set(documented) == {name.upper() for name in fields}
    for variable, default in documented.items():
        actual = fields[variable.lower()].default
        if default in {"–", "the one in the package"}:
            assert actual is None, variable
        else:
            assert str(actual).lower().removesuffix(".0") == default.lower(), variable


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"REDIS_URL": "http://elsewhere"}, "APPORTION_REDIS_URL"),
        ({"HTTP_PORT": "65536"}, "APPORTION_HTTP_PORT"),
        ({"SHARDS": "many"}, "APPORTION_SHARDS"),
        ({"SHARDS": "0"}, "APPORTION_SHARDS"),
        ({"TOPIC_PREFIX": "with space "}, "APPORTION_TOPIC_PREFIX"),
        ({"ALMOST_REACHED_PERCENT": "100"}, "APPORTION_ALMOST_REACHED_PERCENT"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "APPORTION_KAFKA_SASL_MECHANISM"),
        ({"KAFKA_SSL_CERT_FILE": "cert.pem"}, "APPORTION_KAFKA_SSL_CERT_FILE"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    assert named in refused(monkeypatch, **variables)


def test_no_password_is_in_a_message_or_in_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_REDIS_URL", "rediss://user:secret@redis.example:6380/1")
    monkeypatch.setenv("APPORTION_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    monkeypatch.setenv("APPORTION_KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("APPORTION_KAFKA_SASL_USERNAME", "user")
    monkeypatch.setenv("APPORTION_KAFKA_SASL_PASSWORD", "secret")
    loaded = settings.load_settings()
    assert "secret" not in repr(loaded)
    assert loaded.redis_location == "rediss://redis.example:6380/1"
    assert "secret" not in refused(monkeypatch, REDIS_URL="wrong://user:secret@elsewhere")


@pytest.mark.parametrize("scheme", ["redis://:secret@host:6379/0", "rediss://host", "unix:///run/redis.sock"])
def test_every_kind_of_redis_url_is_taken(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("APPORTION_REDIS_URL", scheme)
    monkeypatch.setenv("APPORTION_KAFKA_BOOTSTRAP_SERVERS", "one:9092,two:9092")
    assert settings.require_servers(settings.load_settings()) == ("one:9092,two:9092", scheme)


def test_without_servers_the_sentence_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        settings.SettingsError, match=r"^APPORTION_KAFKA_BOOTSTRAP_SERVERS and APPORTION_REDIS_URL are "
    ):
        settings.require_servers(settings.load_settings())
    monkeypatch.setenv("APPORTION_REDIS_URL", "redis://here")
    with pytest.raises(settings.SettingsError, match=r"^APPORTION_KAFKA_BOOTSTRAP_SERVERS is .*`apportion up`\.$"):
        settings.require_servers(settings.load_settings())
