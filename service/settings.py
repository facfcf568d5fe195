"""Every setting of the service in one place, read from the environment.

The names are those of docs/contracts.md 5. What the environment leaves open is taken from ``.apportion/stack.env`` in
the current folder, which ``apportion up`` writes; what neither says has the default below.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "APPORTION_"
STACK_FILE = Path(".apportion/stack.env")  # written by `apportion up`, relative to the current folder
MESSAGE_BYTES_MAX = 1024 * 1024  # docs/contracts.md 1: a message is at most 1 MiB
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]*")
_TOPIC_PREFIX_LENGTH_MAX = 200  # Kafka allows 249 characters for a whole topic name
_REDIS_SCHEMES = ("redis", "rediss", "unix")


class SettingsError(Exception):
    """The settings do not hold together; the message is one sentence for the person who runs the command."""


def _check_topic_prefix(prefix: str) -> str:
    if not _TOPIC_NAME.fullmatch(prefix) or len(prefix) > _TOPIC_PREFIX_LENGTH_MAX:
        raise ValueError("a topic prefix has letters, digits, '.', '_' and '-' only, at most 200 of them")
    return prefix


def _check_redis_url(url: str) -> str:
    if urlsplit(url).scheme not in _REDIS_SCHEMES:
        raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
    return url


class Settings(BaseSettings):
    """What an operator may choose. Immutable; made once per process by :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # --- Kafka

    kafka_bootstrap_servers: str | None = None
    """``host:port``, several separated by commas."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_file: Path | None = None
    kafka_ssl_cert_file: Path | None = None
    kafka_ssl_key_file: Path | None = None

    # --- Redis

    redis_url: Annotated[str, AfterValidator(_check_redis_url)] | None = Field(default=None, repr=False)
    """May hold a user and a password, so it is never printed; :attr:`redis_location` is."""
    redis_cluster: bool = False

    # --- topics and the consumer group

    topic_prefix: Annotated[str, AfterValidator(_check_topic_prefix)] = "apportion."
    group_id: str = Field(default="apportion", min_length=1)
    topic_partitions: int = Field(default=12, ge=1, le=1000)
    topic_replication_factor: int = Field(default=1, ge=1, le=9)

    # --- HTTP

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    """0: a free port, which the ready line names."""
    http_requests_per_second: float = Field(default=1000, ge=0)
    """Of one API client at one instance, on average over a few seconds; 0: as many as it likes."""
    http_timeout_seconds: float = Field(default=30, gt=0, le=600)
    """From the first byte of a request to the beginning of its answer."""

    # --- who may call: docs/running.md

    jwt_keys_file: Path | None = None
    """Private keys (PEM, EC P-256), one after the other: the first one signs tokens, all of them verify. None: one that
    the ledger keeps for all instances."""
    token_seconds: int = Field(default=3600, ge=901, le=86_400)
    oidc_issuer: str | None = None
    """An outside OpenID Connect issuer whose tokens are accepted too."""
    oidc_audience: str | None = None
    oidc_jwks: str | None = None
    """Where its keys are: a URL or a file."""
    oidc_tenant_claim: str = "tenant_id"
    oidc_scope_claim: str = "scope"

    # --- the domain

    shards: int = Field(default=64, ge=1, le=4096)
    """Fixed at the first start: the ledger remembers it and refuses another number."""
    catalog_file: Path | None = None
    """None: the catalogue inside the package."""
    almost_reached_percent: int = Field(default=80, ge=1, le=99)
    unknown_tenant_wait_seconds: int = Field(default=60, ge=0, le=86_400)

    switch_workloads_at_once_max: int = Field(default=200, ge=1, le=2000)
    """A customer with at most so many workloads is switched in one step; a job moves those of a larger one, at
    most twice as many at a time."""

    # --- bounds: every queue, batch and wait has one

    batch_size_max: int = Field(default=2000, ge=1, le=20_000)
    """Events that are taken from Kafka, decided and committed together."""
    batch_wait_ms_max: int = Field(default=20, ge=1, le=5000)
    """How long a batch that is not full may wait for more."""
    outbox_depth_max: int = Field(default=200_000, ge=1000)
    """Announcements of all shards together that may wait for Kafka before intake pauses."""
    lease_seconds: int = Field(default=10, ge=2, le=300)
    """How long the relay of a shard stays with an instance that has fallen silent."""
    session_seconds: int = Field(default=10, ge=1, le=300)
    """How long the partitions of an instance that has fallen silent stay with it; brokers accept 6 and more unless
    they are told otherwise."""
    sweep_interval_seconds: float = Field(default=1.0, gt=0, le=5)
    """Pause between two looks for what is due; expiry is announced within 5 seconds (docs/domain.md 6.9)."""
    rewind_seconds: int = Field(default=600, ge=1)
    """How far reading goes back when the ledger may have lost its newest writes."""
    shutdown_seconds: float = Field(default=8.0, gt=0, le=10)
    """Time to finish what is in hand after SIGTERM; the contract allows 10 seconds for everything."""

    # --- logs

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    """auto: text where standard error is a terminal, JSON lines elsewhere."""

    @model_validator(mode="after")
    def _check_kafka_credentials(self) -> Settings:
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_sasl_mechanism and self.kafka_sasl_username and self.kafka_sasl_password
        ):
            raise ValueError("SASL needs APPORTION_KAFKA_SASL_MECHANISM, _SASL_USERNAME and _SASL_PASSWORD")
        if (self.kafka_ssl_cert_file is None) != (self.kafka_ssl_key_file is None):
            raise ValueError("APPORTION_KAFKA_SSL_CERT_FILE and _SSL_KEY_FILE are given together or not at all")
        if len({self.oidc_issuer is None, self.oidc_audience is None, self.oidc_jwks is None}) > 1:
            raise ValueError("APPORTION_OIDC_ISSUER, _OIDC_AUDIENCE and _OIDC_JWKS are given together or not at all")
        return self

    @property
    def redis_location(self) -> str:
        """Where Redis is, without user and password: for logs and messages."""
        if self.redis_url is None:
            return ""
        parts = urlsplit(self.redis_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def load_settings(stack_file: Path | None = None) -> Settings:
    """Read the settings: the environment, else ``stack_file`` (default: ``.apportion/stack.env`` here), else defaults.

    Raises ``SettingsError`` with one sentence that names the variable where a value is wrong.
    """
    try:
        return Settings(_env_file=stack_file or STACK_FILE)  # type: ignore[call-arg]  # mypy does not know this argument
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        names = ", ".join(f"{PREFIX}{part.upper()}" for part in first["loc"] if isinstance(part, str))
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{names or 'The settings'}: {reason}.") from None


def require_servers(settings: Settings) -> tuple[str, str]:
    """Where Kafka and Redis are, as ``(bootstrap servers, Redis URL)``.

    Raises ``SettingsError`` with one sentence where either is not said.
    """
    missing = [
        name
        for name, value in (
            (f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers),
            (f"{PREFIX}REDIS_URL", settings.redis_url),
        )
        if not value
    ]
    if settings.kafka_bootstrap_servers and settings.redis_url:
        return settings.kafka_bootstrap_servers, settings.redis_url
    raise SettingsError(
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, neither in the environment nor in "
        f"{STACK_FILE} of the current folder; set them, or start local servers with `apportion up`."
    )
