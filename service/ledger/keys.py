"""Where the ledger keeps what, in Redis.

Every key of shard ``s`` begins with the hash tag ``{s}``: one slot of Redis Cluster, so that one atomic call reaches
all of it. Identifiers may hold colons, so no two of them are ever joined by one: a kind has neither colon nor slash, a
tenant has no slash.

=============================  ======  ===============================================================================
key                            type    holds
=============================  ======  ===============================================================================
``{s}:meta``                   hash    ``sequence``: the last number given; ``incarnation``: of the server that gave it
``{s}:positions``              hash    source -> the position of its last decided transaction
``{s}:timers``                 zset    member, by the moment when it is due (Unix milliseconds)
``{s}:outbox``                 list    announcements that are not published yet, oldest first (outbox.py)
``{s}:KIND:TENANT``            hash    id -> ``version SPACE payload``: the records of a kind
``{s}:KIND/TENANT/ID``         set     an index: members
``{s}:account:TENANT``         hash    item -> ``used reserved value overage raised notices``; -1 stands for none
``{s}:waiting:TENANT``         hash    who -> ``since NUL static NUL places NUL denials`` (queue.py)
``{s}:waiters:TENANT``         zset    who waits at the tenant, ordered by item and moment (queue.py)
``{s}:idempotent:KEY``         string  the first outcome, ``attempt NUL denials ...``, for a day
``{s}:lease:NAME``             string  the holder, until it expires
``directory:BUCKET``           hash    tenant -> shard, spread over 4096 buckets by the check sum of the tenant
``root:names``                 hash    name of a child of root -> tenant
``root:children``              set     the tenants right below root
``installation``               hash    ``shards``, ``kafka_cluster_id``: what must never change
=============================  ======  ===============================================================================
"""

from __future__ import annotations

import zlib

from service.ledger.transaction import IndexKey

DIRECTORY_BUCKETS = 4096
ROOT_NAMES = "root:names"
ROOT_CHILDREN = "root:children"
INSTALLATION = "installation"
RESERVED_KINDS = frozenset(
    {"meta", "positions", "timers", "outbox", "account", "waiting", "waiters", "idempotent", "lease"}
)


def meta(shard: int) -> str:
    """The sequence and the incarnation."""
    return f"{{{shard}}}:meta"


def positions(shard: int) -> str:
    """What of every source is decided."""
    return f"{{{shard}}}:positions"


def timers(shard: int) -> str:
    """What is due when."""
    return f"{{{shard}}}:timers"


def outbox(shard: int) -> str:
    """What is to be announced."""
    return f"{{{shard}}}:outbox"


def records(shard: int, kind: str, tenant: str) -> str:
    """The records of a kind."""
    return f"{{{shard}}}:{kind}:{tenant}"


def index(shard: int, key: IndexKey) -> str:
    """The members of an index."""
    return f"{{{shard}}}:{key.kind}/{key.tenant}/{key.id}"


def accounts(shard: int, tenant: str) -> str:
    """Usage and quotas of a tenant."""
    return f"{{{shard}}}:account:{tenant}"


def waiting(shard: int, tenant: str) -> str:
    """Who of the tenant waits, and why."""
    return f"{{{shard}}}:waiting:{tenant}"


def waiters(shard: int, tenant: str) -> str:
    """Who waits for something to change on the tenant."""
    return f"{{{shard}}}:waiters:{tenant}"


def idempotent(shard: int, key: str) -> str:
    """The first outcome of an idempotency key."""
    return f"{{{shard}}}:idempotent:{key}"


def lease(shard: int, name: str) -> str:
    """Who holds a lease."""
    return f"{{{shard}}}:lease:{name}"


def directory(tenant: str) -> str:
    """The bucket of the directory where a tenant stands."""
    return f"directory:{zlib.crc32(tenant.encode()) % DIRECTORY_BUCKETS}"
