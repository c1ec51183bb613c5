"""Secrets that have to be read again, sealed: AES-256-GCM (NIST SP 800-38D), a fresh nonce in front."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atelier.contract.errors import InternalError

NONCE = 12


def key_of(secret: bytes) -> bytes:
    """The key, 32 bytes, that a secret of the deployment gives."""
    return hashlib.sha256(b"atelier sealing\0" + secret).digest()


def seal(key: bytes, text: bytes, about: str) -> bytes:
    """`text` so that only `key` opens it, and only as what it is about."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, text, about.encode())


def unseal(key: bytes, sealed: bytes, about: str) -> bytes:
    """What was sealed. Raises InternalError where it was under another key, about something else, or
    changed.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], about.encode())
    except (InvalidTag, ValueError) as error:
        raise InternalError("A secret cannot be read with this deployment's key.") from error
