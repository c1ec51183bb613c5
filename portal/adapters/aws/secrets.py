"""Secrets in Secrets Manager, made on first use."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract.errors import StorageFailed
from portal.adapters.aws import failures

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
SIZE = 32
"""Bytes of a fresh secret."""


class AwsSecrets:
    """Secrets named `<prefix>/keys/<name>`, hexadecimal digits, read once by each process. `client` is a
    boto3 client of Secrets Manager; `kms_key` encrypts them, without it the account's own key does.
    """

    def __init__(
        self,
        client: Any,
        prefix: str,
        *,
        kms_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._client, self._prefix = client, prefix
        self._kms = {"KmsKeyId": kms_key} if kms_key else {}
        self._tags = [{"Key": key, "Value": value} for key, value in sorted((labels or {}).items())]
        self._lock = threading.Lock()
        self._known: dict[str, tuple[bytes, str]] = {}

    def get(self, name: str) -> bytes:
        """See Secrets. Raises StorageFailed, NotPermitted."""
        return self._found(name)[0]

    def arn(self, name: str) -> str:
        """By what others are given the right to read it."""
        return self._found(name)[1]

    def _found(self, name: str) -> tuple[bytes, str]:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no name of a secret")
        with self._lock:
            if name not in self._known:
                self._known[name] = self._read(f"{self._prefix}/keys/{name}")
            return self._known[name]

    def _read(self, called: str) -> tuple[bytes, str]:
        """The secret; made where there is none. Of two that make it together one is told that it exists, and
        reads what the other made.
        """
        try:
            told = self._value(called)
            if told is None:
                self._make(called)
                told = self._value(called)
        except (ClientError, BotoCoreError) as error:
            raise failures.translated(error, f"reading the secret {called!r}") from error
        if told is None:
            raise StorageFailed(f"The secret {called!r} was made and cannot be found. Try again.")
        try:
            value = bytes.fromhex(told.get("SecretString", "").strip())
        except ValueError:
            value = b""
        if len(value) < SIZE:
            raise StorageFailed(
                f"The secret {called!r} is none that this studio made: it should be {2 * SIZE} hexadecimal "
                "digits. Put it back to its version before, or delete it, which logs everybody out."
            )
        return value, str(told["ARN"])

    def _value(self, called: str) -> dict[str, Any] | None:
        try:
            return dict(self._client.get_secret_value(SecretId=called))
        except ClientError as error:
            if failures.code_of(error) == "ResourceNotFoundException":
                return None
            if failures.code_of(error) == "InvalidRequestException":
                raise StorageFailed(
                    f"The secret {called!r} is about to be deleted. Restore it: aws secretsmanager "
                    f"restore-secret --secret-id {called}"
                ) from error
            raise

    def _make(self, called: str) -> None:
        try:
            self._client.create_secret(
                Name=called,
                Description="Made by the studio on first use; nobody needs to know it.",
                SecretString=secrets.token_hex(SIZE),
                Tags=self._tags,
                **self._kms,
            )
        except ClientError as error:
            if failures.code_of(error) != "ResourceExistsException":
                raise
