"""``python -m service.local``: fetch what the local stack needs, so that its first start is quick."""

from __future__ import annotations

import sys

from service.local import kafka, redis
from service.local.server import LocalServerError


def main() -> int:
    """Say what is at hand and what is missing; fetch Apache Kafka where that is possible. Exit code 0 or 1."""
    missing = kafka.list_missing()
    if missing:
        print(f"Apache Kafka needs {', '.join(missing)}; without, a small broker in memory serves for a first look.")
    else:
        try:
            print(f"Apache Kafka: {kafka.fetch_jars()}")
        except LocalServerError as error:
            print(error, file=sys.stderr)
            return 1
    program = redis.find_program()
    print(f"Redis: {program or 'missing (Debian package redis-server)'}")
    return 0 if program else 1


if __name__ == "__main__":
    raise SystemExit(main())
