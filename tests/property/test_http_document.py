"""What HTTP answers is what its OpenAPI document says, whatever is asked: schemathesis asks."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import schemathesis
import uvloop
from schemathesis import checks

from service import http
from service.http import scopes
from service.http.__main__ import document
from tests.unit.handlers.test_mass_switches import fleet
from tests.unit.http.site import Site

CUSTOMERS = ("c1", "c2", "c3")
KNOWN = {
    "tenant_id": ("msp", "c1", "c2", "dist", "root"),
    "workload_id": ("c1-1", "c2-1"),
    "reservation_id": ("r1", "r2"),
    "application_id": ("6e6d758d-8e74-3ae3-ac84-50eb0dff12eb",),
}
EXAMPLES = 6  # of each operation, beside those of the document
CHECKED = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

schema = schemathesis.openapi.from_dict(json.loads(document()))


class Served:
    """The application on the reference ledger, on a loop of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.token = ""
        self._ready = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(10)

    async def _serve(self) -> None:
        site = Site()
        await fleet(site, customers=CUSTOMERS)
        client = await site.client("dist")
        self.token = (await site.api.tokens.issue(client, "dist", scopes.ALL))["access_token"]
        server = http.WebServer(site.application, "127.0.0.1", 0)
        self.url = server.url
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(server.stop)
        self._ready.set()
        await server.serve()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as found:
        yield found


@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_answer_is_a_failure_of_the_service_or_other_than_the_document_says(
    case: schemathesis.Case, served: Served
) -> None:
    for name, known in KNOWN.items():
        given = case.path_parameters.get(name)
        if isinstance(given, str):  # mostly something that is there, as what is not there is soon answered
            case.path_parameters[name] = (*known, given)[zlib.crc32(given.encode()) % (len(known) + 1)]
    headers = {"Authorization": f"Bearer {served.token}"}
    case.call_and_validate(base_url=served.url, headers=headers, checks=CHECKED)
