"""The process of librdkafka's broker: ``python -m service.local.mock_kafka BROKERS ANSWER_FILE``.

It writes where it listens into the answer file and then waits for SIGTERM. It keeps everything in memory.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer

_METADATA_SECONDS_MAX = 10


def main() -> None:
    """Run the broker until a signal ends it."""
    brokers, answer = int(sys.argv[1]), Path(sys.argv[2])
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before librdkafka starts its threads, which inherit the mask
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": brokers})
    members = producer.list_topics(timeout=_METADATA_SECONDS_MAX).brokers.values()
    part = answer.with_suffix(".part")
    part.write_text(",".join(f"{member.host}:{member.port}" for member in members), encoding="utf-8")
    part.rename(answer)  # whole or not at all: its existence says that the broker is ready
    signal.sigwait(signals)


if __name__ == "__main__":
    main()
