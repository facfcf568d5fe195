"""Tokens: short-lived JWTs of our own, and, where the settings name one, those of an outside issuer.

The first key signs and all keys verify, so that a key is changed in two steps: add the new one in front, and take the
old one away when its last token has expired.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.http.errors import ApiError
from service.http.scopes import ALL
from service.settings import Settings, SettingsError

ISSUER = AUDIENCE = "apportion"
ALGORITHM = "ES256"
OUTSIDE_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
KNOWN_MAX = 10_000  # tokens whose signature need not be looked at again
JWKS_SECONDS = 300  # that the keys of an outside issuer are kept
TOKEN_LENGTH_MAX = 8192

_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


class Caller(NamedTuple):
    """Who asks: an API client of ours, or somebody an outside issuer vouches for."""

    id: str
    tenant_id: str
    scopes: frozenset[str]
    is_client: bool


class OutsideIssuer(msgspec.Struct, frozen=True):
    """Whose tokens are accepted beside our own; ``jwks`` is a URL or a file."""

    issuer: str
    audience: str
    jwks: str
    tenant_claim: str
    scope_claim: str

    @classmethod
    def of(cls, settings: Settings) -> OutsideIssuer | None:
        """The one of the settings, if they name one."""
        if settings.oidc_issuer is None or settings.oidc_audience is None or settings.oidc_jwks is None:
            return None
        return cls(
            settings.oidc_issuer,
            settings.oidc_audience,
            settings.oidc_jwks,
            settings.oidc_tenant_claim,
            settings.oidc_scope_claim,
        )


class Key(NamedTuple):
    """A key pair under the name that tokens refer to it by."""

    id: str
    private: ec.EllipticCurvePrivateKey
    public: dict[str, Any]  # as a JWK


def make_key() -> bytes:
    """A new private key as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_keys(pem: bytes) -> list[Key]:
    """The keys in a text of PEM blocks. Raises ``SettingsError`` where there is none, or one of another kind."""
    keys = []
    for block in _PEM.findall(pem):
        try:
            private = serialization.load_pem_private_key(block, None)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"APPORTION_JWT_KEYS_FILE has a key that cannot be read: {error}.") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise SettingsError("APPORTION_JWT_KEYS_FILE must have keys of the kind EC P-256 only.")
        keys.append(_named(private))
    if not keys:
        raise SettingsError("APPORTION_JWT_KEYS_FILE has no key in it.")
    return keys


def _named(private: ec.EllipticCurvePrivateKey) -> Key:
    """A key with its thumbprint (RFC 7638) as its name."""
    numbers = private.public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    public = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    thumbprint = hashlib.sha256(json.dumps(public, separators=(",", ":"), sort_keys=True).encode()).digest()
    name = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return Key(name, private, {**public, "kid": name, "use": "sig", "alg": ALGORITHM})


class Tokens:
    """Makes and reads tokens. ``shared_keys`` brings the ledger's PEM where no file names keys."""

    def __init__(
        self,
        shared_keys: Callable[[], Awaitable[bytes]],
        *,
        keys_file: Path | None = None,
        seconds: int = 3600,
        outside: OutsideIssuer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shared_keys = shared_keys
        self._keys = read_keys(keys_file.read_bytes()) if keys_file else []
        self._seconds = seconds
        self._outside = outside
        self._clock = clock
        self._known: dict[str, tuple[float, Caller]] = {}
        self._outside_keys: tuple[float, dict[str, jwt.PyJWK]] = (0.0, {})
        self._lock = asyncio.Lock()

    async def keys(self) -> list[Key]:
        """Our keys, the one that signs first. Raises ``LedgerUnavailable``."""
        if not self._keys:
            self._keys = read_keys(await self._shared_keys())
        return self._keys

    async def issue(self, client_id: str, tenant_id: str, scopes: tuple[str, ...]) -> dict[str, Any]:
        """The answer to a client that has shown its secret."""
        key = (await self.keys())[0]
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": client_id,
            "tenant_id": tenant_id,
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + self._seconds,
            "jti": str(uuid.uuid4()),
        }
        return {
            "access_token": jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.id}),
            "token_type": "bearer",
            "expires_in": self._seconds,
            "expires_on": now + self._seconds,
            "id_token": "",
            "scope": claims["scope"],
        }

    async def read(self, token: str) -> Caller:
        """Whose token it is. Raises ``ApiError`` (401) for one that is wrong, expired or foreign."""
        now = self._clock()
        expires, caller = self._known.get(token, (0.0, None))
        if caller is not None and expires > now:
            return caller
        if len(token) > TOKEN_LENGTH_MAX:
            raise unauthorized("The token is too long.")
        try:
            claims, caller = await self._verify(token)
        except jwt.ExpiredSignatureError:
            raise unauthorized("The token has expired.") from None
        except (jwt.PyJWTError, ValueError, KeyError, TypeError):
            raise unauthorized("The token is not valid.") from None
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[token] = (float(claims["exp"]), caller)
        return caller

    async def _verify(self, token: str) -> tuple[dict[str, Any], Caller]:
        name = jwt.get_unverified_header(token).get("kid")
        for key in await self.keys():
            if key.id == name:
                claims = self._decode(token, key.private.public_key(), [ALGORITHM], AUDIENCE, ISSUER)
                scopes = frozenset(str(claims["scope"]).split())
                return claims, Caller(claims["sub"], claims["tenant_id"], scopes, is_client=True)
        if self._outside is None:
            raise jwt.InvalidTokenError
        return await self._verify_outside(self._outside, token, str(name))

    async def _verify_outside(self, outside: OutsideIssuer, token: str, name: str) -> tuple[dict[str, Any], Caller]:
        found = (await self._keys_outside(outside)).get(name)
        if found is None:
            raise jwt.InvalidTokenError
        claims = self._decode(token, found.key, list(OUTSIDE_ALGORITHMS), outside.audience, outside.issuer)
        said = claims.get(outside.scope_claim) or ()
        scopes = frozenset(said.split() if isinstance(said, str) else map(str, said)) & set(ALL)
        # Names of somebody else's are put into a form of ours, so that they cannot be one of our clients.
        who = "oidc-" + hashlib.sha256(f"{outside.issuer}\0{claims['sub']}".encode()).hexdigest()[:40]
        return claims, Caller(who, str(claims[outside.tenant_claim]), scopes, is_client=False)

    def _decode(self, token: str, key: Any, algorithms: list[str], audience: str, issuer: str) -> dict[str, Any]:
        options: Any = {"require": ["exp", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False}
        claims: dict[str, Any] = jwt.decode(token, key, algorithms, audience=audience, issuer=issuer, options=options)
        if float(claims["exp"]) <= self._clock():  # by our own clock, which tests can move
            raise jwt.ExpiredSignatureError
        return claims

    async def _keys_outside(self, outside: OutsideIssuer) -> Mapping[str, jwt.PyJWK]:
        """The outside issuer's keys, read again from time to time, so that it may change them."""
        async with self._lock:
            until, found = self._outside_keys
            if until > self._clock():
                return found
            try:
                document = await asyncio.to_thread(_read_document, outside.jwks)
                found = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys if key.key_id}
            except (OSError, ValueError, jwt.PyJWTError):
                if not found:  # those that are known serve on while the issuer is away
                    raise ApiError(503, "503", "The keys of the outside issuer cannot be read.") from None
            self._outside_keys = (self._clock() + JWKS_SECONDS, found)
            return found


def _read_document(place: str) -> dict[str, Any]:
    if place.startswith(("https://", "http://")):
        client = jwt.PyJWKClient(place, timeout=5)
        document: dict[str, Any] = client.fetch_data()
        return document
    return dict(json.loads(Path(place).read_text(encoding="utf-8")))


def unauthorized(message: str) -> ApiError:
    """There is no caller."""
    return ApiError(401, "401", message)
