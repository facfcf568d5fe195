"""Kafka and Redis on this machine, for the demo, for `apportion up` and for tests."""
