"""The local stack with real processes: what it starts serves, survives a kill, and is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pytest
import redis

from service import settings
from service.local import kafka, kafka_probe, stack
from service.local import redis as local_redis
from service.local.server import LocalServerError, ProcessIdentity, Server, find_free_port, wait_until


@pytest.fixture
def work_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to call `up` in; whatever a test leaves running is stopped."""
    yield tmp_path
    stack.down(tmp_path)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Server]:
    """A server that does nothing, ready at once."""
    server = Server("sleeper", ["sleep", "600"], folder=tmp_path, is_ready=lambda _: True)
    yield server
    server.kill()


def exchange_message(bootstrap_servers: str, topic: str) -> bytes | None:
    """Create a topic, publish one message and read it back, with a client that is not ours."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap_servers})
    (created,) = admin.create_topics(
        [
            confluent_kafka.admin.NewTopic(topic, 1, 1)  # type: ignore[attr-defined]  # its place in the client
        ]
    ).values()
    created.result(20)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(topic, b"hello")
    assert producer.flush(20) == 0
    return read_first_message(bootstrap_servers, topic)


def read_first_message(bootstrap_servers: str, topic: str) -> bytes | None:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "test"})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(20)
        assert message is not None, "no message came"
        return message.value()
    finally:
        consumer.close()


# --- servers


def test_kafka_passes_a_message_of_another_client_through(kafka: str, topic_prefix: str) -> None:
    assert exchange_message(kafka, f"{topic_prefix}hello") == b"hello"


def test_kafka_does_not_make_topics_that_nobody_created(kafka: str, topic_prefix: str) -> None:
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": kafka})
    admin.list_topics(f"{topic_prefix}absent", timeout=10)
    assert f"{topic_prefix}absent" not in admin.list_topics(timeout=10).topics


def test_redis_runs_with_every_setting_that_the_ledger_needs(redis_fresh: str) -> None:
    with redis.Redis.from_url(redis_fresh, decode_responses=True) as client:
        answers = {name: client.config_get(name)[name] for name in local_redis.LEDGER_FLAGS}
    assert answers == local_redis.LEDGER_FLAGS


def test_the_cluster_has_three_masters_and_serves_every_slot(redis_cluster_fresh: str) -> None:
    with redis.RedisCluster.from_url(redis_cluster_fresh) as client:
        assert len(client.get_primaries()) == 3
        for number in range(50):
            client.set(f"{{{number}}}key", number)
        assert sum(client.dbsize(target_nodes=node) for node in client.get_primaries()) == 50


def test_what_was_acknowledged_survives_a_kill_of_both_servers(own_stack: stack.Stack) -> None:
    servers, url = own_stack.addresses.kafka_bootstrap_servers, own_stack.addresses.redis_url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    assert exchange_message(servers, "kept") == b"hello"

    own_stack.kill_redis()
    own_stack.kill_kafka()
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.get("kept")
    assert kafka_probe.ask(int(servers.rpartition(":")[2])) is None

    own_stack.restart_redis()
    own_stack.restart_kafka()
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
    assert read_first_message(servers, "kept") == b"hello"


def test_a_paused_redis_answers_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    local = local_redis.LocalRedis(tmp_path)
    local.start()
    try:
        with redis.Redis.from_url(local.url, socket_timeout=0.2) as client:
            local.servers[0].pause()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            assert local.servers[0].is_running()
            local.servers[0].resume()
            assert client.ping()
    finally:
        local.kill()


def test_the_mock_broker_serves_a_client_and_says_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "list_missing", lambda: ["default-jre-headless"])
    with pytest.raises(LocalServerError, match="default-jre-headless"):
        kafka.build(tmp_path, real_only=True)
    mock = kafka.build(tmp_path, brokers=3)
    assert mock.kind == "mock"
    mock.start()
    try:
        assert len(mock.bootstrap_servers.split(",")) == 3
        producer = confluent_kafka.Producer({"bootstrap.servers": mock.bootstrap_servers})
        assert len(producer.list_topics(timeout=10).brokers) == 3
    finally:
        mock.kill()
    assert "in memory" in stack.MOCK_KAFKA_NOTE


# --- starting and stopping


def test_a_server_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = Server("broken", ["sh", "-c", "echo no luck; exit 3"], folder=tmp_path, is_ready=lambda _: False)
    with pytest.raises(LocalServerError, match=r"broken did not start\. Its log ends: no luck"):
        server.start()


def test_a_server_that_never_answers_is_reported_after_its_time(tmp_path: Path) -> None:
    server = Server("mute", ["sleep", "600"], folder=tmp_path, is_ready=lambda _: False, start_seconds_max=0.1)
    with pytest.raises(LocalServerError, match="in vain for mute"):
        server.start()
    server.kill()


def test_a_start_on_a_port_that_was_taken_meanwhile_is_tried_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local_redis.LocalRedis(tmp_path / "first")
    first.start()
    try:
        ports = iter([first.port, find_free_port()])
        monkeypatch.setattr(local_redis, "find_free_port", lambda: next(ports))
        second = local_redis.LocalRedis(tmp_path / "second")
        second.start()
        assert local_redis.find_process(second.port) == second.servers[0].pid
        assert second.port != first.port
        second.kill()
    finally:
        first.kill()


def test_a_process_with_a_number_that_was_given_again_is_left_alone(sleeper: Server) -> None:
    sleeper.start()
    assert sleeper.pid is not None
    stranger = ProcessIdentity(sleeper.pid, "another start")
    assert not stranger.is_running()
    stranger.stop()
    stranger.send(signal.SIGKILL)
    assert sleeper.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent exists on Linux only")
def test_a_server_dies_with_its_program_even_where_that_is_killed(tmp_path: Path, repository: Path) -> None:
    program = (
        "from pathlib import Path; import sys, signal; from service.local.server import Server\n"
        "server = Server('child', ['sleep', '600'], folder=Path(sys.argv[1]), is_ready=lambda _: True)\n"
        "server.start(); print(server.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=repository
    ) as parent:
        assert parent.stdout is not None
        child = ProcessIdentity.of(int(parent.stdout.readline()))
        assert child is not None
        parent.kill()
    wait_until(lambda: not child.is_running(), 10, "the child to die")


def test_a_stack_leaves_neither_processes_nor_files(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), stack.Stack(kafka_bootstrap_servers="elsewhere:9092") as servers:
        folder, server = servers.folder, servers.redis_server
        assert server.is_running()
        assert servers.addresses.kafka_kind == "configured"
        raise KeyboardInterrupt
    assert not server.is_running()
    assert not folder.exists()


# --- up and down


def test_up_leads_every_command_of_its_folder_to_the_servers(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = stack.up(work_folder)
    monkeypatch.chdir(work_folder)
    assert settings.require_servers(settings.load_settings()) == (
        addresses.kafka_bootstrap_servers,
        addresses.redis_url,
    )
    monkeypatch.setenv("APPORTION_REDIS_URL", "redis://elsewhere")
    assert settings.load_settings().redis_url == "redis://elsewhere", "the environment wins"
    monkeypatch.delenv("APPORTION_REDIS_URL")

    assert stack.up(work_folder) == addresses, "a second up finds what the first one started"
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.set("kept", "yes")

    assert sorted(stack.down(work_folder)) == ["kafka-1", "redis"]
    assert stack.down(work_folder) == [], "a second down finds nothing to stop"
    assert not (work_folder / settings.STACK_FILE).exists()

    again = stack.up(work_folder)
    with redis.Redis.from_url(again.redis_url) as client:
        assert client.get("kept") == b"yes", "the data outlives down"


def test_up_starts_nothing_that_is_configured(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("APPORTION_REDIS_URL", "redis://elsewhere")
    addresses = stack.up(work_folder)
    assert (addresses.kafka_kind, addresses.redis_kind) == ("configured", "configured")
    assert stack.down(work_folder) == []


def test_data_of_another_kind_of_stack_is_set_aside_not_mixed_in(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPORTION_KAFKA_BOOTSTRAP_SERVERS", "one:9092")
    first = stack.up(work_folder)
    with redis.Redis.from_url(first.redis_url) as client:
        client.set("of", "one")
    stack.down(work_folder)
    monkeypatch.setenv("APPORTION_KAFKA_BOOTSTRAP_SERVERS", "two:9092")
    second = stack.up(work_folder)
    with redis.Redis.from_url(second.redis_url) as client:
        assert client.get("of") is None
    assert any("set aside" in note for note in second.notes)
    assert len(list(work_folder.glob(".apportion/data-before-*"))) == 1


def test_up_that_fails_leaves_nothing_running(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LocalServerError("no Kafka today")

    monkeypatch.setattr(stack, "build", fail)
    with pytest.raises(LocalServerError, match="no Kafka today"):
        stack.up(work_folder)
    assert list(work_folder.glob(".apportion/data/*/*.pid")) == []
    assert not (work_folder / settings.STACK_FILE).exists()


def test_the_stack_file_is_for_its_owner_only(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("APPORTION_REDIS_URL", "redis://user:secret@elsewhere")
    stack.up(work_folder)
    assert (work_folder / settings.STACK_FILE).stat().st_mode & 0o077 == 0
    assert os.environ["APPORTION_REDIS_URL"] in (work_folder / settings.STACK_FILE).read_text(encoding="utf-8")
