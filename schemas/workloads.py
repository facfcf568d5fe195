"""Workloads: what agents say of the machines, mailboxes and sites they look after (docs/domain.md 6)."""

from __future__ import annotations

from typing import Literal

from schemas.base import CatalogName, Data, Flag, Identifier, Name, Quantity

OperatingSystem = Literal["desktop", "server"]
OperatingSystemFamily = Literal["windows", "linux", "macos", "other"]


class WorkloadRegistered(Data):
    """A workload exists. A type that no offering item knows is accepted here and refused by the assignment."""

    workload_id: Identifier
    type: CatalogName
    name: Name | None = None
    os: OperatingSystem | None = None
    os_family: OperatingSystemFamily | None = None
    virtual: Flag = False


class Usage(Data):
    """Bytes that a workload occupies now: absolute values. An absent one is unchanged."""

    storage_bytes: Quantity | None = None
    local_storage_bytes: Quantity | None = None


class WorkloadUsageReported(Data):
    """The storage gauges of a workload."""

    workload_id: Identifier
    usage: Usage


class WorkloadRemoved(Data):
    """A workload is gone, and with it what it held."""

    workload_id: Identifier
