"""The OpenAPI document: whole, committed, and the one that is served."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema

from service.http.__main__ import document
from tests.unit.http.site import Site

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


async def test_the_committed_document_is_the_one_that_is_served() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == document(), "run `make openapi`"
    served = (await Site().bearer(None).get("http://service/openapi.json")).json()
    assert served == json.loads(document())


def test_every_operation_says_what_it_is_for_and_every_body_has_an_example() -> None:
    found = json.loads(document())
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            for media in operation.get("requestBody", {}).get("content", {}).values():
                name = media["schema"].get("$ref", "").rpartition("/")[2]
                schema = found["components"]["schemas"].get(name, media["schema"])
                assert {"example", "examples"} & (media.keys() | schema.keys()), (method, path)


def test_every_answer_in_json_has_a_schema_with_an_example() -> None:
    found = json.loads(document())
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                schema = answer.get("content", {}).get("application/json", {}).get("schema")
                if path.startswith("/api/") and status != "204":
                    name = (schema or {}).get("$ref", "").rpartition("/")[2]
                    assert "example" in found["components"]["schemas"].get(name, {}), (method, path, status)


def test_every_reference_leads_to_a_schema_and_every_schema_is_referred_to() -> None:
    text = document()
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred == set(json.loads(text)["components"]["schemas"])


def test_every_example_fits_its_schema() -> None:
    found = json.loads(document())
    looked_at = 0
    for schema in found["components"]["schemas"].values():
        if "example" in schema:
            jsonschema.validate(schema["example"], {**schema, "components": found["components"]})
            looked_at += 1
    assert looked_at


def test_operation_ids_are_unique_and_paths_of_the_contract_are_there() -> None:
    found = json.loads(document())
    ids = [each["operationId"] for some in found["paths"].values() for each in some.values()]
    assert len(ids) == len(set(ids))
    tenant = "/tenants/{tenant_id}"
    expected = {
        "/idp/token",
        "/clients",
        "/clients/{client_id}",
        "/users/me",
        "/users",
        "/applications",
        "/applications/{application_id}/bindings" + tenant,
        "/infra",
        "/editions",
        "/tenants",
        "/tenants/offering_items",
        "/tenants/usages",
        tenant,
        *(tenant + each for each in ("/applications", "/children", "/usages", "/offering_items")),
        tenant + "/offering_items/available_for_child",
        tenant + "/edition",
    }
    one, job = tenant + "/reservations/{reservation_id}", "/switch-jobs/{job_id}"
    own = {
        *(tenant + each for each in ("/workloads", "/workloads/{workload_id}", "/features", "/explain")),
        *(tenant + "/reservations", one, one + "/commit"),
        *("/switches/{switch_id}", "/switches/{switch_id}/undo", "/switch-jobs", "/switch-jobs/preview", job),
        *(f"{job}/{verb}" for verb in ("preview", "pause", "resume", "cancel", "undo", "results")),
    }
    assert {f"/api/2{path}" for path in expected} | {f"/api/v1{path}" for path in own} <= found["paths"].keys()
