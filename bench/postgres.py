"""The ledger's decision in PostgreSQL, with row locks: what the same would cost in a database that everybody has.

Driven by ``pgbench``, which is written in C and takes far less of the two cores than a client in Python would: the
comparison is kind to PostgreSQL. The server is Debian's, started for the benchmark alone, as a user without rights.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.local.server import LocalServerError, wait_until

_SCHEMA = Path(__file__).with_name("decide.sql")
_USERS = ("postgres", "nobody")  # initdb refuses root
_START_SECONDS_MAX = 30
_STOP_SECONDS_MAX = 30
_ITEM = "pw_base_workstations"
_PLENTY = 10**15

MISSING = (
    "PostgreSQL is not installed (Debian package postgresql), so the rows that compare with it are left out; nothing "
    "else changes."
)


class Shape(NamedTuple):
    """Who asks: so many tenants, in so many trees that share nothing, each with its own way of ``path_length`` up."""

    path_length: int
    tenants: int
    trees: int


def find_programs() -> Path | None:
    """The folder with initdb, postgres and pgbench of the newest version; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in found:
        if all((folder / name).exists() for name in ("initdb", "postgres", "pgbench", "psql")):
            return folder
    beside = shutil.which("pgbench")
    return Path(beside).resolve().parent if beside and shutil.which("initdb") else None


class Postgres:
    """A running server, reached over a socket in its folder."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user

    @property
    def version(self) -> str:
        """Its version, for the machine's description."""
        return self._run("postgres", "--version").rpartition("PostgreSQL) ")[2].strip()

    def load(self, shape: Shape, *, synchronous: bool) -> None:
        """An empty schema with the accounts of every tenant and of those above it."""
        self._query(f"ALTER SYSTEM SET synchronous_commit = {'on' if synchronous else 'off'}")
        self._query("SELECT pg_reload_conf()")
        self._query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self._run("psql", *self._where(), "-q", "-v", "ON_ERROR_STOP=1", "-f", str(_SCHEMA))
        rows = ", ".join(
            f"({tenant}, '{_ITEM}', {depth}, {_PLENTY}, 0)"
            for depth in range(shape.path_length)
            for tenant in _level(shape, depth)
        )
        self._query(f"INSERT INTO account (tenant, item, depth, value, overage) VALUES {rows}")
        self._query("VACUUM ANALYZE; CHECKPOINT")

    def decisions_per_second(self, shape: Shape, script: str, *, callers: int, seconds: int) -> float:
        """The decisions of that many callers, each with a connection of its own."""
        file = self._folder / "script.sql"
        file.write_text(script, encoding="utf-8")
        file.chmod(0o644)
        answer = self._run(
            "pgbench",
            *self._where(database=False),
            "-n",
            "-M",
            "prepared",
            "-f",
            str(file),
            "-c",
            str(callers),
            "-j",
            "1",
            "-T",
            str(seconds),
            "postgres",
        )  # fmt: skip - one row a line reads best
        found = re.search(r"tps = ([\d.]+) \(without initial", answer)
        if found is None:
            raise LocalServerError(f"pgbench has not said how many transactions there were: {answer[-500:]}")
        self._check(shape)
        return float(found[1])

    def _check(self, shape: Shape) -> None:
        """Whether every decision is counted on every level: a baseline that loses some would be no baseline."""
        decided, counted = self._query("SELECT count(*) FROM workload"), self._query("SELECT sum(used) FROM account")
        if int(decided) * shape.path_length != int(counted):
            raise AssertionError(f"{decided} decisions on {shape.path_length} levels are counted as {counted}")

    def _query(self, text: str) -> str:
        statements = [part for each in text.split("; ") for part in ("-c", each)]
        return self._run("psql", *self._where(), "-q", "-At", "-v", "ON_ERROR_STOP=1", *statements).strip()

    def _where(self, *, database: bool = True) -> list[str]:
        user = self._user or pwd.getpwuid(os.getuid()).pw_name
        return ["-h", str(self._folder), "-U", user, *(["-d", "postgres"] if database else [])]

    def _run(self, program: str, *arguments: str) -> str:
        return _run(self._programs / program, arguments, self._user)


def script_of_one_call(shape: Shape, record: str, announcement: str) -> str:
    """The decision as one call of a function in the server: the fewest round trips there can be."""
    return f"{_choice(shape)}SELECT decide({_path(shape)}, '{_ITEM}', 1, :client_id, '{record}', '{announcement}');\n"


def script_of_statements(shape: Shape, record: str, announcement: str) -> str:
    """The decision as an application would write it: a transaction of single statements."""
    path = _path(shape)
    return _choice(shape) + (
        "BEGIN;\n"
        "SELECT used, value, overage FROM account "
        f"WHERE tenant = ANY ({path}) AND item = '{_ITEM}' ORDER BY depth, tenant FOR NO KEY UPDATE;\n"
        f"UPDATE account SET used = used + 1 WHERE tenant = ANY ({path}) AND item = '{_ITEM}';\n"
        f"INSERT INTO workload (tenant, payload) VALUES (:tenant, '{record}');\n"
        f"INSERT INTO outbox (facts) VALUES ('{announcement}');\n"
        "UPDATE stream SET place = place + 1 WHERE source = :client_id;\n"
        "COMMIT;\n"
    )


FORMS = {"one call": script_of_one_call, "statements": script_of_statements}


@contextlib.contextmanager
def server() -> Iterator[Postgres | None]:
    """A PostgreSQL for the block; None where it is not installed."""
    programs = find_programs()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="apportion-bench-"))
    user = _unprivileged(folder)
    running = None
    try:
        _run(programs / "initdb", ["-D", str(folder / "data"), "-A", "trust", "--no-sync", "-E", "UTF8"], user)
        options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "200"}
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = (folder / "log").open("wb")
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **_as(user))
        ready = [str(programs / "pg_isready"), "-q", "-h", str(folder)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, _START_SECONDS_MAX, "PostgreSQL")
        yield Postgres(programs, folder, user)
    finally:
        if running is not None:
            running.terminate()
            running.wait(_STOP_SECONDS_MAX)
        shutil.rmtree(folder, ignore_errors=True)


def _level(shape: Shape, depth: int) -> list[int]:
    """The tenants of a level: many at the bottom, one of each tree above."""
    if depth == shape.path_length - 1:
        return list(range(shape.tenants))
    return [1_000_000 * (depth + 1) + tree for tree in range(shape.trees)]


def _choice(shape: Shape) -> str:
    return f"\\set tenant random(0, {shape.tenants - 1})\n\\set tree :tenant % {shape.trees}\n"


def _path(shape: Shape) -> str:
    above = [f"{1_000_000 * (depth + 1)} + :tree" for depth in reversed(range(shape.path_length - 1))]
    return f"ARRAY[{', '.join([':tenant', *above])}]"


def _unprivileged(folder: Path) -> str | None:
    """Whom to run the server as; None for whoever runs this, who owns the folder already."""
    if os.getuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            os.chown(folder, found.pw_uid, found.pw_gid)
            return name
    raise LocalServerError(f"PostgreSQL cannot be started by root, and there is none of the users {', '.join(_USERS)}.")


def _as(user: str | None) -> dict[str, Any]:
    """Options of subprocess for another user."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _run(program: Path, arguments: list[str] | tuple[str, ...], user: str | None) -> str:
    answer = subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=False, cwd="/", **_as(user)
    )
    if answer.returncode != 0:
        raise LocalServerError(f"{program.name} failed: {answer.stderr.strip()[-500:]}")
    return str(answer.stdout) + str(answer.stderr)
