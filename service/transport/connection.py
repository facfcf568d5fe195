"""How every Kafka client of the service connects: one place for servers, encryption and credentials."""

from __future__ import annotations

import ssl
from typing import Any

from service import settings as configuration
from service.settings import Settings

CLIENT_ID = "apportion"
REQUEST_TIMEOUT_MS = 30_000  # for one request to a broker
METADATA_MAX_AGE_MS = 60_000  # new partitions and brokers are seen after that long at the latest


def client_options(settings: Settings) -> dict[str, Any]:
    """The options that aiokafka's consumer, producer and administration client have in common.

    Raises ``SettingsError`` where the servers are not said.
    """
    servers, _ = configuration.require_servers(settings)
    options: dict[str, Any] = {
        "bootstrap_servers": servers,
        "client_id": CLIENT_ID,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "security_protocol": settings.kafka_security_protocol,
    }
    if uses_tls(settings):
        options["ssl_context"] = tls_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": password(settings),
        }
    return options


def uses_tls(settings: Settings) -> bool:
    """Whether the connection is encrypted."""
    return settings.kafka_security_protocol in ("SSL", "SASL_SSL")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The system's certificate authorities or the given ones, and the client's own certificate, if any."""
    context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
    if settings.kafka_ssl_cert_file and settings.kafka_ssl_key_file:
        context.load_cert_chain(settings.kafka_ssl_cert_file, settings.kafka_ssl_key_file)
    return context


def password(settings: Settings) -> str:
    """The password, in the clear."""
    return settings.kafka_sasl_password.get_secret_value() if settings.kafka_sasl_password else ""
