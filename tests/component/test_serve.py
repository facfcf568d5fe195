"""An instance as its operator meets it: real processes, real Kafka, real Redis."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from service.local.stack import Stack
from tests.component.fleet import Fleet, wait_for


@pytest.fixture
def fleet(kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path) -> Iterator[Fleet]:
    """The service, with its topics, for a test that starts and ends instances."""
    made = Fleet(kafka, redis_fresh, topic_prefix, tmp_path)
    made.answer("topics", "create")
    yield made
    made.close()


@pytest.fixture(scope="module")
def at_work(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The service with an instance that several tests talk to, each of customers of its own."""
    with Stack() as servers:
        made = Fleet(kafka, servers.start_redis(), f"t{uuid.uuid4().hex[:12]}.", tmp_path_factory.mktemp("at-work"))
        made.answer("topics", "create")
        made.serve().ready()
        yield made
        made.close()


def letters(fleet: Fleet, code: str) -> dict[str, dict[str, Any]]:
    """The dead letters with a code, by their id."""
    found = fleet.answer("dead-letters", "list")["dead_letters"]
    return {letter["id"]: letter for letter in found if letter["code"] == code}


def held(fleet: Fleet) -> dict[str, dict[str, int]]:
    """What each workload holds, from the announcements alone."""
    changes = [event for event in fleet.read("assignments") if event["type"] == "apportion.assignment.changed.v1"]
    newest: dict[str, tuple[int, dict[str, int]]] = {}
    for event in changes:
        name = f"{event['tenantid']}/{event['data']['workload_id']}"
        newest[name] = max(newest.get(name, (0, {})), (event["revision"], event["data"]["holding"]))
    return {name: holding for name, (_, holding) in newest.items()}


# --- the beginning


def test_an_instance_says_where_it_is_when_it_is_ready_and_nothing_else_on_standard_output(at_work: Fleet) -> None:
    instance = at_work.instances[0]
    ready = instance.ready()
    assert ready["event"] == "ready" and ready["http"].startswith("http://127.0.0.1:")
    assert instance.get("/health/live")[0] == 200
    assert instance.get("/health/ready") == (200, '{"status":"ready","reasons":[]}')


def test_the_contract_of_the_events_is_served_with_the_full_names_of_the_topics(at_work: Fleet) -> None:
    _, document = at_work.instances[0].get("/asyncapi.json")
    channels = json.loads(document)["channels"]
    assert channels["assignments"]["address"] == at_work.prefix + "assignments"
    status, page = at_work.instances[0].get("/asyncapi")
    assert status == 200 and f"{at_work.prefix}assignments" in page


def test_an_error_has_the_body_of_all_errors(at_work: Fleet) -> None:
    status, body = at_work.instances[0].get("/nowhere")
    assert status == 404
    error = json.loads(body)["error"]
    assert error["code"].isdigit() and set(error) == {"code", "domain", "message", "context", "details"}


def test_an_instance_without_its_topics_says_so_in_a_sentence(
    kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path
) -> None:
    fleet = Fleet(kafka, redis_fresh, topic_prefix, tmp_path)
    done = fleet.command("serve")
    assert done.returncode == 1 and done.stdout == ""
    assert f"no topic {topic_prefix}tenant-changes" in done.stderr.splitlines()[-1]
    assert "apportion topics create" in done.stderr.splitlines()[-1]


def test_an_instance_refuses_a_kafka_whose_offsets_the_ledger_does_not_know(fleet: Fleet, redis_fresh: str) -> None:
    with redis.Redis.from_url(redis_fresh) as client:
        client.hset("installation", "kafka_cluster_id", "another-cluster")
    done = fleet.command("serve")
    assert done.returncode == 1
    assert "another-cluster" in done.stderr.splitlines()[-1]


def test_an_instance_refuses_a_topic_that_ends_before_what_the_ledger_has_decided(
    fleet: Fleet, redis_fresh: str
) -> None:
    with redis.Redis.from_url(redis_fresh) as client:
        client.hset("{3}:positions", f"{fleet.prefix}workload-events/1", 5 * 16_384)
    done = fleet.command("serve")
    assert done.returncode == 1
    assert "up to offset 5 of" in done.stderr.splitlines()[-1]


def test_two_instances_cannot_serve_http_at_one_port(fleet: Fleet) -> None:
    first = fleet.serve()
    port = first.url().rpartition(":")[2]
    fleet.environment["APPORTION_HTTP_PORT"] = port
    done = fleet.command("serve")
    assert done.returncode == 1 and f"127.0.0.1:{port}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("roles", ["", "consume,cook"])
def test_an_unknown_role_is_wrong_use(fleet: Fleet, roles: str) -> None:
    done = fleet.command("serve", "--roles", roles)
    assert done.returncode == 2 and "there are consume, relay, sweep, http" in done.stderr


# --- at work


def test_what_is_published_is_decided_announced_and_then_the_status_is_idle(at_work: Fleet) -> None:
    at_work.send_customer("two", quota=2)
    for workload in ("w1", "w2", "w3"):
        at_work.send_workload("two", workload)
    status = at_work.settle()
    assert not any(status["lag"].values()) and status["outbox"] == status["delayed"] == 0
    instance = at_work.instances[0]
    assert [member["id"] for member in status["instances"]] == [instance.ready()["instance"]]
    mine = [holding for name, holding in held(at_work).items() if name.startswith("two/") and holding]
    assert mine == [{"pw_base_workstations": 1}] * 2
    denied = [event for event in at_work.read("assignments") if event["type"] == "apportion.assignment.denied.v1"]
    assert {denial["tenant_id"] for denial in denied[-1]["data"]["denials"]} == {"two", "two-dist"}
    _, metrics = instance.get("/metrics")
    assert 'apportion_decisions_total{outcome="applied",type="apportion.tenant.upserted.v1"}' in metrics


def test_what_will_be_read_again_after_a_restart_of_redis_counts_as_not_decided(fleet: Fleet, redis_fresh: str) -> None:
    first = fleet.serve()
    fleet.send_customer("again")
    fleet.send_workload("again", "w1")
    fleet.settle()
    assert first.end() == 0
    with redis.Redis.from_url(redis_fresh) as client:  # as it is after a restart, before anybody has looked
        client.hset("rewound", mapping=dict.fromkeys(client.hkeys("rewound"), "an earlier incarnation"))
    lag = fleet.answer("status")["lag"]
    assert (lag["tenant-changes"], lag["workload-events"], lag["plan-changes"]) == (4, 1, 2)
    fleet.serve()
    assert not any(fleet.settle()["lag"].values())


def test_announcements_are_structured_events_with_their_tenant_as_key(at_work: Fleet) -> None:
    at_work.send_customer("keyed")
    at_work.settle()
    messages = list(at_work.messages("tenants"))
    assert messages
    for message in messages:
        event = json.loads(message.value() or b"")
        assert message.key() == event["tenantid"].encode()
        assert message.headers() == [("content-type", b"application/cloudevents+json")]
        assert event["source"] == "/apportion" and event["causeid"].startswith("e-")


def test_a_message_that_cannot_be_read_is_a_dead_letter_and_stops_nobody(at_work: Fleet) -> None:
    before = letters(at_work, "invalid_envelope")
    at_work.send_customer("beside")
    at_work.produce("workload-events", b"{broken", "beside", [("trace", b"\xff\xfe")])
    at_work.send_workload("beside", "w1")
    counted = at_work.settle()["dead_letters"]["invalid_envelope"]
    after = letters(at_work, "invalid_envelope")
    (new,) = after.keys() - before.keys()
    assert after[new]["topic"] == at_work.prefix + "workload-events" and counted == len(after)
    assert held(at_work)["beside/w1"] == {"pw_base_workstations": 1}


def test_a_message_of_two_megabytes_is_a_dead_letter(at_work: Fleet) -> None:
    large = Fleet(at_work.environment["APPORTION_KAFKA_BOOTSTRAP_SERVERS"], "", at_work.prefix, at_work.folder)
    large.allow_messages_of(4 * 1024 * 1024)
    large.produce("plan-changes", b"x" * 2 * 1024 * 1024, "c")
    large.flush()
    assert at_work.settle()["dead_letters"]["message_too_large"] == 1


def test_a_dead_letter_is_sent_again_once_its_cause_is_gone(at_work: Fleet) -> None:
    at_work.send("workload-events", "workload.registered", "late", {"workload_id": "w1", "type": "workstation"})
    at_work.send("plan-changes", "plan.applied", "late", {"plan_id": "p", "workload_ids": ["w1"]})
    assert at_work.settle()["dead_letters"]["unknown_tenant"] == 2, "they waited for their tenant in vain"
    at_work.send_customer("late")
    at_work.settle()
    planned = at_work.answer("dead-letters", "redrive", "--code", "unknown_tenant", "--dry-run")
    assert [each["sent"] for each in planned["dead_letters"]] == [False, False]
    sent = at_work.answer("dead-letters", "redrive", "--code", "unknown_tenant")
    assert [each["sent"] for each in sent["dead_letters"]] == [True, True]
    assert "unknown_tenant" not in at_work.settle()["dead_letters"]
    assert held(at_work)["late/w1"] == {"pw_base_workstations": 1}
    assert letters(at_work, "unknown_tenant") == {}
    everything = at_work.answer("dead-letters", "list", "--all")["dead_letters"]
    assert sum(letter["code"] == "unknown_tenant" for letter in everything) == 2


def test_a_dead_letter_without_its_value_is_sent_again_from_its_topic(at_work: Fleet) -> None:
    before = letters(at_work, "invalid_envelope")
    value = b"{" + b" " * 800 * 1024
    at_work.produce("plan-changes", value, "c", [("a", b"1"), ("a", b"2")])
    at_work.settle()
    (name,) = letters(at_work, "invalid_envelope").keys() - before.keys()
    (sent,) = at_work.answer("dead-letters", "redrive", "--id", name)["dead_letters"]
    assert sent["problem"] is None
    first, again = (message for message in at_work.messages("plan-changes") if message.value() == value)
    assert again.key() == first.key() == b"c" and again.headers() == first.headers()


def test_a_dead_letter_that_nobody_knows_cannot_be_sent_again(at_work: Fleet) -> None:
    done = at_work.command("dead-letters", "redrive", "--id", "nothing")
    assert done.returncode == 1 and done.stderr.strip() == "There is no dead letter nothing."


def test_who_waits_for_idleness_in_vain_is_told_so(fleet: Fleet) -> None:
    fleet.send_customer("c")
    fleet.flush()
    done = fleet.command("status", "--wait-idle", "0.3", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["lag"]["tenant-changes"] == 4
    assert done.stderr.strip() == "Not everything was decided and announced within 0.3 seconds."


# --- the end


def test_a_signal_ends_an_instance_in_order_and_without_a_trace(fleet: Fleet) -> None:
    instance = fleet.serve()
    instance.ready()
    fleet.send_customer("c")
    for number in range(2000):
        fleet.send_workload("c", f"w{number}")
    began = time.monotonic()
    assert instance.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert fleet.answer("status")["instances"] == []
    assert fleet.answer("status")["outbox"] == 0


def test_what_a_killed_instance_had_in_hand_is_decided_once_by_the_next(fleet: Fleet) -> None:
    fleet.send_customer("c")
    fleet.serve().ready()
    fleet.settle()
    for number in range(1500):
        fleet.send_workload("c", f"w{number}")
        if number == 700:
            fleet.instances[0].end(signal.SIGKILL)
            fleet.serve()
    fleet.settle(60)
    assert held(fleet) == {f"c/w{number}": {"pw_base_workstations": 1} for number in range(1500)}
    usage = [event for event in fleet.read("usage") if event["tenantid"] == "c"]
    assert max(usage, key=lambda event: event["revision"])["data"]["used"] == 1500
    contents: dict[str, dict[str, object]] = {}
    for topic in ("assignments", "usage", "tenants"):
        for event in fleet.read(topic):
            assert contents.setdefault(event["id"], event) == event, "a repeat has the same content"


def test_instances_share_the_shards_and_take_over_from_one_that_leaves(fleet: Fleet) -> None:
    first, second = fleet.serve(), fleet.serve()
    first.ready()
    second.ready()

    def shards(instance_number: int) -> float:
        _, metrics = fleet.instances[instance_number].get("/metrics")
        return float(metrics.partition('apportion_shards{lease="relay"} ')[2].partition("\n")[0] or 0)

    wait_for(lambda: shards(0) + shards(1) == 64 and min(shards(0), shards(1)) > 10, 20, "a fair share")
    assert first.end() == 0
    wait_for(lambda: shards(1) == 64, 5, "the shards of the one that left")
    fleet.send_customer("c")
    fleet.settle()


# --- servers that come and go


def test_without_redis_an_instance_is_not_ready_and_goes_on_by_itself(own_stack: Stack, tmp_path: Path) -> None:
    fleet = Fleet(own_stack.start_kafka(), own_stack.start_redis(), "t.", tmp_path)
    try:
        fleet.answer("topics", "create")
        instance = fleet.serve()
        instance.ready()
        fleet.send_customer("c")
        fleet.settle()
        own_stack.kill_redis()
        wait_for(lambda: instance.get("/health/ready")[0] == 503, 10, "not being ready")
        assert "ledger" in instance.get("/health/ready")[1]
        assert instance.get("/health/live")[0] == 200
        fleet.send_workload("c", "w1")
        own_stack.restart_redis()
        fleet.settle()
        assert instance.get("/health/ready")[0] == 200
        assert held(fleet) == {"c/w1": {"pw_base_workstations": 1}}
        assert "apportion_rewinds_total 0.0" not in instance.get("/metrics")[1]
        assert instance.end() == 0
    finally:
        fleet.close()


def test_without_kafka_an_instance_is_not_ready_and_goes_on_by_itself(own_stack: Stack, tmp_path: Path) -> None:
    fleet = Fleet(own_stack.start_kafka(), own_stack.start_redis(), "t.", tmp_path)
    try:
        fleet.answer("topics", "create")
        instance = fleet.serve()
        instance.ready()
        fleet.send_customer("c")
        fleet.settle()
        own_stack.kill_kafka()
        wait_for(lambda: instance.get("/health/ready")[0] == 503, 15, "not being ready")
        assert "Kafka" in instance.get("/health/ready")[1]
        own_stack.restart_kafka()
        fleet.send_workload("c", "w1")
        fleet.settle(60)
        wait_for(lambda: instance.get("/health/ready")[0] == 200, 15, "being ready")
        assert held(fleet) == {"c/w1": {"pw_base_workstations": 1}}
        own_stack.kill_kafka()
        assert instance.end() == 0, "it ends in time without Kafka too"
    finally:
        fleet.close()
