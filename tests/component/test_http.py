"""HTTP as integrators use it: a plain client against real instances, real Redis and real Kafka."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from tests.component.fleet import Fleet, Instance, wait_for

MODE = "pck_per_workload"
BASE = "pw_base_workstations"
ROOT = "root"


class Program:
    """What integrators write: a token, and calls with it."""

    def __init__(self, url: str, client: dict[str, str]) -> None:
        self.url = f"{url}/api/2"
        answer = requests.post(
            f"{self.url}/idp/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            data={"grant_type": "client_credentials"},
            auth=(client["client_id"], client["client_secret"]),
            timeout=10,
        )
        answer.raise_for_status()
        self.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=20, **more)

    def get(self, path: str, **more: Any) -> dict[str, Any]:
        return done(self.ask("GET", path, **more))

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return done(self.ask("PUT", path, data=json.dumps(body)))  # as many scripts do: without a content type

    def post(self, path: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        return done(self.ask("POST", path, json=body, **more))


def done(answer: requests.Response) -> dict[str, Any]:
    assert answer.ok, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def fleet(kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(kafka, redis_fresh, topic_prefix, tmp_path)
    made.answer("topics", "create")
    yield made
    made.close()


def first_client(fleet: Fleet, *arguments: str) -> dict[str, str]:
    return fleet.answer("tenants", "client", "create", "root", *arguments)


def test_an_integrators_script_runs_from_its_token_to_the_usage_of_its_customer(fleet: Fleet) -> None:
    instance = fleet.serve()
    root = Program(instance.url(), first_client(fleet))
    tenant_id = root.get("/users/me")["tenant_id"]
    partner = root.post("/tenants", {"name": "MSP", "kind": "partner", "parent_id": tenant_id})
    offered = root.get(f"/tenants/{tenant_id}/offering_items/available_for_child", params={"edition": MODE})
    root.put(f"/tenants/{partner['id']}/offering_items", {"offering_items": offered["items"]})
    program = Program(instance.url(), root.post("/clients", {"tenant_id": partner["id"], "type": "api_client"}))

    customer = program.post("/tenants", {"name": "Customer", "kind": "customer", "parent_id": partner["id"]})
    query = {"kind": "customer", "edition": MODE}
    items = program.get(f"/tenants/{partner['id']}/offering_items/available_for_child", params=query)["items"]
    for item in items:
        if item["name"] == BASE:
            item["quota"]["value"], item["quota"]["overage"] = 2, 0
    shown = program.put(f"/tenants/{customer['id']}/offering_items", {"offering_items": items})
    assert [each["name"] for each in shown["items"]] == [each["name"] for each in items]

    fleet.send("plan-changes", "plan.saved", customer["id"], {"plan_id": "p", "features": ["backup.files"]})
    for workload in ("w1", "w2", "w3"):
        about = {"workload_id": workload, "type": "workstation"}
        fleet.send("workload-events", "workload.registered", customer["id"], about)
        applied = {"plan_id": "p", "workload_ids": [workload]}
        fleet.send("plan-changes", "plan.applied", customer["id"], applied)
    fleet.settle()
    usages = program.get(f"/tenants/{customer['id']}/usages", params={"usage_names": "workstations"})["items"]
    assert [(each["value"], each["offering_item"]["quota"]["value"]) for each in usages] == [(2, 2)]
    page = program.get("/tenants", params={"subtree_root_id": partner["id"], "limit": 1})
    following = program.get("/tenants", params={"after": page["paging"]["cursors"]["after"]})
    assert [page["items"][0]["id"], following["items"][0]["id"]] == [partner["id"], customer["id"]]

    stopped = program.put(f"/tenants/{customer['id']}", {"version": customer["version"], "enabled": False})
    gone = program.ask("DELETE", f"/tenants/{customer['id']}/?version={stopped['version']}")
    assert (gone.status_code, gone.content) == (204, b"")
    fleet.settle()
    assert fleet.answer("ledger", "verify")["ok"]
    changed = [each for each in fleet.read("tenants") if each["subject"] == customer["id"]]
    assert [each["data"]["deleted"] for each in changed] == [False, False, True]


def test_http_is_served_by_an_instance_that_does_nothing_else(fleet: Fleet) -> None:
    root = Program(fleet.serve("--roles", "http").url(), first_client(fleet, "--scope", "viewer"))
    assert root.get("/tenants")["items"][0]["id"] == "root"
    refused = root.ask("POST", "/tenants", json={"name": "P", "kind": "partner", "parent_id": "root"})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "1002"


def test_of_many_who_change_one_quota_at_once_on_two_instances_one_wins_each_time(fleet: Fleet) -> None:
    instances = [fleet.serve(), fleet.serve()]
    client = first_client(fleet)
    programs = [Program(each.url(), client) for each in instances]
    partner = programs[0].post("/tenants", {"name": "P", "kind": "partner", "parent_id": "root"})
    path = f"/tenants/{partner['id']}/offering_items"

    def change(program: Program, value: int, version: int) -> int:
        quota = {"value": value, "overage": 0, "version": version}
        body = {"offering_items": [{"name": BASE, "status": 1, "quota": quota}]}
        return program.ask("PUT", path, json=body).status_code

    version = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for attempt in range(5):
            asked = [pool.submit(change, programs[n % 2], 10 * attempt + n + 1, version) for n in range(8)]
            codes = [each.result() for each in asked]
            assert sorted(codes) == [200] + [409] * 7
            (item,) = programs[0].get(path, params={"status": 1, "edition": MODE})["items"]
            assert item["quota"]["version"] > version
            version = item["quota"]["version"]


def test_a_repeat_after_the_process_was_killed_makes_no_second_tenant(fleet: Fleet) -> None:
    instance = fleet.serve()
    client = first_client(fleet)
    body = {"name": "P", "kind": "partner", "parent_id": "root", "contact": {"email": "a@example.org"}}
    headers = {"Idempotency-Key": "the-key"}
    held = threading.Event()

    # The name lease is what a new direct partner waits for, so the process can be killed in the middle of the request.
    ledger = redis.Redis.from_url(fleet.environment["APPORTION_REDIS_URL"])
    program = Program(instance.url(), client)

    def ask() -> None:
        held.set()
        with pytest.raises(requests.RequestException):
            program.ask("POST", "/tenants", json=body, headers=headers)

    ledger.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    asking = threading.Thread(target=ask)
    asking.start()
    held.wait(5)
    wait_for(lambda: blocked(ledger), 10, "the request to reach Redis")
    instance.end(signal.SIGKILL)
    asking.join(20)
    ledger.execute_command("CLIENT", "UNPAUSE")

    again = Program(fleet.serve().url(), client)
    first = again.post("/tenants", body, headers=headers)
    second = again.post("/tenants", body, headers=headers)
    assert first == second
    assert again.get(f"/tenants/{ROOT}/children")["items"] == [first["id"]]


def blocked(ledger: redis.Redis) -> bool:
    """Whether somebody waits for Redis to take a write."""
    return int(ledger.info("clients")["blocked_clients"]) > 0


def test_a_change_that_was_made_by_a_process_that_could_not_answer_is_found_again(fleet: Fleet) -> None:
    instance = fleet.serve()
    client = first_client(fleet)
    program = Program(instance.url(), client)
    headers = {"Idempotency-Key": "the-key"}
    body = {"name": "P", "kind": "partner", "parent_id": "root"}
    kill_when_written(fleet, instance, program, body, headers)
    again = Program(fleet.serve().url(), client)
    made = again.post("/tenants", body, headers=headers)
    assert made["version"] == 1
    assert again.get(f"/tenants/{ROOT}/children")["items"] == [made["id"]]


def kill_when_written(
    fleet: Fleet, instance: Instance, program: Program, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """End the process as soon as the ledger has the tenant, whether or not it has answered by then."""
    ledger = redis.Redis.from_url(fleet.environment["APPORTION_REDIS_URL"])

    def ask() -> None:
        try:
            program.ask("POST", "/tenants", json=body, headers=headers)
        except requests.RequestException:
            return  # usually

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: list(ledger.scan_iter("{*}:tenant:*")), 10, "the tenant in the ledger")
    instance.end(signal.SIGKILL)
    asking.join(20)


def test_requests_and_events_for_one_tenant_at_the_same_time_keep_every_invariant(fleet: Fleet) -> None:
    program = Program(fleet.serve().url(), first_client(fleet))
    fleet.serve()
    partner = program.post("/tenants", {"name": "P", "kind": "partner", "parent_id": "root"})["id"]
    customer = program.post("/tenants", {"name": "C", "kind": "customer", "parent_id": partner})["id"]
    quota = {"value": 12, "overage": 0}
    for tenant in (partner, customer):
        item = {"name": BASE, "status": 1, "quota": quota}
        program.put(f"/tenants/{tenant}/offering_items", {"offering_items": [item]})
    fleet.send("plan-changes", "plan.saved", customer, {"plan_id": "p", "features": ["backup.files"]})
    path = f"{program.url.removesuffix('/api/2')}/api/v1/tenants/{customer}/reservations"

    def reserve(number: int) -> str:
        body = {"reservation_id": f"r{number}", "items": {BASE: 1}}
        state = str(done(requests.post(path, json=body, headers=program.headers, timeout=20))["state"])
        if number % 3 == 0:
            requests.delete(f"{path}/r{number}", headers=program.headers, timeout=20).raise_for_status()
        return state

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(reserve, number) for number in range(40)]
        for number in range(20):
            workload = f"w{number}"
            fleet.send(
                "workload-events", "workload.registered", customer, {"workload_id": workload, "type": "workstation"}
            )
            fleet.send("plan-changes", "plan.applied", customer, {"plan_id": "p", "workload_ids": [workload]})
        states = [each.result() for each in asked]
    assert set(states) == {"granted", "denied"}
    fleet.settle()
    (usage,) = fleet.answer("usage", customer)["items"]
    assert usage["used"] == 12, "what is free is taken by who waits, and no more than there is"
    assert usage["reserved"] < 40
    assert fleet.answer("ledger", "verify")["ok"]


def test_the_example_for_people_runs_as_it_stands(fleet: Fleet) -> None:
    instance = fleet.serve()
    client = first_client(fleet)
    script = Path(__file__).parents[2] / "examples" / "over-http.sh"
    environment = {**os.environ, "CLIENT_ID": client["client_id"], "CLIENT_SECRET": client["client_secret"]}
    ran = subprocess.run([script, instance.url()], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    quota, stale, *used, state, denial, available, switched, _ = ran.stdout.splitlines()
    assert json.loads(quota) == {"value": 10, "overage": 0, "version": 1}
    assert "version" in stale and used == ["0", "0"]
    assert state == "granted" and "uses 8" in denial and available == "10" and switched == "completed"
