"""The command line itself: where errors go, and which exit code they have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from service import cli, commands, logs
from service.commands import console
from service.commands.console import CommandError
from service.settings import SettingsError


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets logging up for its process, which here is that of all tests."""
    monkeypatch.setattr(logs, "configure", lambda _: None)


def run(*arguments: str) -> int:
    return cli.run(list(arguments))


def test_wrong_use_is_a_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("nonsense",), ("status", "--nonsense"), ("catalog", "nonsense"), ("up", "--brokers", "2")):
        assert run(*arguments) == cli.WRONG_USE
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1, shown.err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == cli.WRONG_USE
    assert "serve" in capsys.readouterr().err
    assert run("--help") == 0
    assert "dead-letters" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("status",), ("serve",), ("topics", "create"), ("dead-letters", "list")])
def test_without_servers_each_command_says_so_in_a_sentence(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == cli.FAILURE
    shown = capsys.readouterr()
    assert shown.out == "" and "APPORTION_KAFKA_BOOTSTRAP_SERVERS" in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (CommandError("There is nothing."), "There is nothing."),
        (SettingsError("A value is wrong."), "A value is wrong."),
        (FileNotFoundError(2, "No such file", "x"), "[Errno 2] No such file: 'x'"),
    ],
)
def test_errors_that_were_foreseen_are_one_sentence(error: Exception, sentence: str) -> None:
    assert console.sentence(error) == sentence


def test_an_error_of_kafka_says_that_it_is_one() -> None:
    assert console.sentence(KafkaConnectionError("no route")).startswith("Kafka cannot be used: KafkaConnectionError")


def test_an_error_that_nobody_foresaw_comes_with_its_trace() -> None:
    assert "Traceback" in console.sentence(_raised()) or "ZeroDivisionError" in console.sentence(_raised())
    assert console.sentence(_raised()).endswith("This is a fault of the program.")


def _raised() -> Exception:
    try:
        1 / 0  # noqa: B018 - it is raised on purpose
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def test_a_module_that_can_register_is_a_command_and_nothing_else_knows_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greeting.py").write_text(
        "import typer\n\n\ndef register(application):\n    application.command()(greet)\n\n\n"
        "def greet():\n    typer.echo('hello')\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert run("greet") == 0
    assert capsys.readouterr().out == "hello\n"


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalog", "validate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert run("catalog", "show", "--json") == 0
    assert "items" in json.loads(capsys.readouterr().out)


def test_a_catalogue_that_is_wrong_is_told_with_every_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "catalog.json"
    broken.write_text("{}")
    assert run("catalog", "validate", str(broken), "--json") == cli.FAILURE
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is False and shown["findings"]
