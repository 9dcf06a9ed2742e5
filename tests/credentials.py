"""Credentials as an operator of NATS gives them out: a server's configuration, and files for its users.

What ``nsc`` does, as far as tests need it (https://docs.nats.io: decentralized JWT authentication).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from typing import Any, Final

import nkeys

__all__ = ["Operator"]

SEED: Final = 18 << 3
KINDS: Final = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class _Key:
    """A fresh pair of keys, and what it says of others under its signature."""

    def __init__(self, kind: str) -> None:
        prefix = KINDS[kind]
        raw = bytes([SEED | prefix >> 5, (prefix & 31) << 3]) + os.urandom(32)
        raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
        self.seed = base64.b32encode(raw).rstrip(b"=")
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.name = self._pair.public_key.decode()

    def certify(self, subject: _Key, kind: str, limits: dict[str, Any], expires_s: float = 0) -> str:
        now = int(time.time())
        claims = {
            "jti": os.urandom(8).hex(),
            "iat": now,
            "iss": self.name,
            "sub": subject.name,
            "name": kind,
            "nats": {"type": kind, "version": 2, **limits},
            **({"exp": int(now + expires_s)} if expires_s else {}),
        }
        signed = f"{_encode({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encode(claims)}"
        signature = base64.urlsafe_b64encode(self._pair.sign(signed.encode())).rstrip(b"=")
        return f"{signed}.{signature.decode()}"


def _encode(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


class Operator:
    """An operator with one account."""

    def __init__(self) -> None:
        self._key, self._account = _Key("operator"), _Key("account")

    @property
    def configuration(self) -> dict[str, Any]:
        """What a server has to be told."""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        account = self._key.certify(self._account, "account", {"limits": {**limits, "wildcards": True}})
        return {
            "operator": self._key.certify(self._key, "operator", {}),
            "resolver": "MEMORY",
            "resolver_preload": {self._account.name: account},
        }

    def credentials(self, expires_s: float = 0) -> str:
        """The contents of a new user's credentials file; valid for ever by default."""
        user = _Key("user")
        token = self._account.certify(user, "user", {"subs": -1, "data": -1, "payload": -1}, expires_s)
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
