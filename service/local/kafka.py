"""A Kafka for this machine: Apache Kafka in KRaft mode, or the broker that librdkafka carries inside."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from service.local import kafka_probe
from service.local.server import (
    LocalServerError,
    Server,
    find_free_ports,
    is_port_free,
    start_on_free_ports,
)

_POM = Path(__file__).with_name("pom.xml")
_LOG_SETTINGS = Path(__file__).with_name("log4j2.xml")
_FETCH_SECONDS_MAX = 600
_START_SECONDS_MAX = 90


def find_cache_folder() -> Path:
    """Where what was fetched is kept for this user."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "apportion"


def find_jars_folder() -> Path:
    """Where the jars of the version that pom.xml names are, or will be once they are fetched."""
    pom = _POM.read_bytes()
    version = re.search(rb"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)</version>", pom)
    assert version is not None, "pom.xml names a version of Kafka"
    return find_cache_folder() / f"kafka-{version[1].decode()}-{hashlib.sha256(pom).hexdigest()[:8]}"


def list_missing() -> list[str]:
    """What Apache Kafka would still need on this machine, as Debian package names; empty where it can be started."""
    missing = [] if shutil.which("java") else ["default-jre-headless"]
    if not find_jars_folder().is_dir() and not shutil.which("mvn"):
        missing.append("maven")
    return missing


def fetch_jars() -> Path:
    """The folder with the broker's jars, fetched from Maven Central the first time.

    Several processes may ask at once: each fetches into a folder of its own, and the first to finish is kept.
    Raises ``LocalServerError`` where Maven is missing or fails.
    """
    folder = find_jars_folder()
    if folder.is_dir():
        return folder
    if not shutil.which("mvn"):
        raise LocalServerError("Maven is needed to fetch Apache Kafka the first time (Debian package: maven).")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="kafka-fetch-") as work:
        shutil.copy(_POM, work)
        jars = Path(work, "jars")
        command = ["mvn", "-q", "-B", "--strict-checksums", "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        try:
            subprocess.run(command, cwd=work, check=True, capture_output=True, text=True, timeout=_FETCH_SECONDS_MAX)
        except subprocess.CalledProcessError as error:
            raise LocalServerError(f"Maven could not fetch Apache Kafka: {error.stdout.strip()[-500:]}") from None
        except subprocess.TimeoutExpired:
            raise LocalServerError(f"Maven did not fetch Apache Kafka in {_FETCH_SECONDS_MAX} seconds.") from None
        try:
            jars.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


class LocalKafka:
    """A cluster of one or three brokers with its data in a folder; a later start in that folder continues it."""

    def __init__(self, folder: Path, *, brokers: int = 1, heap_mb: int = 1024) -> None:
        if brokers not in (1, 3):
            raise LocalServerError(f"A local Kafka has 1 or 3 brokers, not {brokers}.")
        self.kind = "apache"
        self.folder = folder
        self.brokers = brokers
        self.servers: list[Server] = []
        self._heap_mb = heap_mb
        self._ports: dict[str, list[int]] = {}

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every broker, separated by commas."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports["listeners"])

    def start(self, *, detached: bool = False) -> None:
        """Start every broker and wait until the cluster answers with all of them.

        Ports of an earlier start are used again where they are free. Raises ``LocalServerError``.
        """
        fetch_jars()
        self.servers = start_on_free_ports(self._build_servers, detached=detached)

    def stop(self) -> None:
        """Stop every broker in order."""
        for server in reversed(self.servers):
            server.stop()

    def kill(self) -> None:
        """End every broker at once, as a power cut would."""
        for server in self.servers:
            server.kill()

    def _choose_ports(self, *, keep: bool) -> None:
        kept_in = self.folder / "ports.json"
        if keep and kept_in.exists():
            self._ports = json.loads(kept_in.read_text(encoding="utf-8"))
            if all(is_port_free(port) for ports in self._ports.values() for port in ports):
                return
        free = find_free_ports(2 * self.brokers)
        self._ports = {"listeners": free[: self.brokers], "controllers": free[self.brokers :]}
        kept_in.write_text(json.dumps(self._ports), encoding="utf-8")

    def _build_servers(self, *, keep_ports: bool) -> list[Server]:
        """Choose ports, write each broker's configuration, and format its storage the first time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports(keep=keep_ports)
        id_file = self.folder / "cluster-id"
        if not id_file.exists():
            # The first bits are zero: an id that began with "-" would be taken for an option.
            random_bytes = bytes([uuid.uuid4().bytes[0] & 0x7F, *uuid.uuid4().bytes[1:]])
            id_file.write_text(base64.urlsafe_b64encode(random_bytes).decode().rstrip("="), encoding="utf-8")
        cluster_id = id_file.read_text(encoding="utf-8")
        return [self._build_broker(node, cluster_id) for node in range(1, self.brokers + 1)]

    def _build_broker(self, node: int, cluster_id: str) -> Server:
        home = self.folder / f"broker-{node}"
        home.mkdir(exist_ok=True)
        properties = home / "server.properties"
        properties.write_text(self._render_properties(node, home / "data"), encoding="utf-8")
        java = [
            "java",
            f"-Xmx{self._heap_mb}m",
            f"-Dlog4j2.configurationFile={_LOG_SETTINGS}",
            "-cp",
            f"{find_jars_folder()}/*",
        ]
        if not (home / "data/meta.properties").exists():
            command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                raise LocalServerError(f"Kafka's storage could not be formatted: {answer.stderr.strip()[-500:]}")
        port = self._ports["listeners"][node - 1]
        return Server(
            f"kafka-{node}",
            [*java, "kafka.Kafka", str(properties)],
            folder=self.folder,
            is_ready=lambda _: kafka_probe.ask(port) == (cluster_id, self.brokers),
            start_seconds_max=_START_SECONDS_MAX,
        )

    def _render_properties(self, node: int, data: Path) -> str:
        listener = f"127.0.0.1:{self._ports['listeners'][node - 1]}"
        controller = f"127.0.0.1:{self._ports['controllers'][node - 1]}"
        voters = ",".join(f"{id_}@127.0.0.1:{port}" for id_, port in enumerate(self._ports["controllers"], start=1))
        in_sync = 2 if self.brokers > 1 else 1  # with three, one broker may die without an acknowledged message
        settings = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{listener}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "min.insync.replicas": in_sync,
            "broker.session.timeout.ms": 3000,  # a killed broker is soon known to be dead, so a restart is short
            "broker.heartbeat.interval.ms": 500,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,  # tests need not wait long for an instance that was killed
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": self.brokers,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": self.brokers,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": self.brokers,
            "share.coordinator.state.topic.min.isr": in_sync,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


class MockKafka:
    """The broker inside librdkafka: the real protocol, everything in memory, good for a first look only."""

    def __init__(self, folder: Path, *, brokers: int = 1) -> None:
        self.kind = "mock"
        self.folder = folder
        self.brokers = brokers
        self._answer = folder / "mock-brokers.txt"
        command = [sys.executable, "-m", "service.local.mock_kafka", str(brokers), str(self._answer)]
        self.servers = [Server("kafka-mock", command, folder=folder, is_ready=lambda _: self._answer.exists())]

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every broker, separated by commas; known once it is started."""
        return self._answer.read_text(encoding="utf-8").strip()

    def start(self, *, detached: bool = False) -> None:
        """Start it, with nothing in it: what an earlier one held is gone, and the ports are others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._answer.unlink(missing_ok=True)
        self.servers[0].start(detached=detached)

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        self.servers[0].stop()

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        self.servers[0].kill()


def build(folder: Path, *, brokers: int = 1, real_only: bool = False) -> LocalKafka | MockKafka:
    """Apache Kafka where this machine can run it, else librdkafka's broker; not started yet.

    Raises ``LocalServerError`` where neither is possible, or where only the second is and ``real_only`` forbids it.
    """
    missing = list_missing()
    if not missing:
        return LocalKafka(folder, brokers=brokers)
    need = f"Apache Kafka needs {' and '.join(missing)} on this machine (those are Debian package names)"
    if real_only or importlib.util.find_spec("confluent_kafka") is None:
        raise LocalServerError(f"{need}.")
    return MockKafka(folder, brokers=brokers)
