"""What things are called in the account. Everything of an endpoint begins with `<prefix>-<endpoint>`, by
which rights are given and leftovers are found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from atelier.contract.errors import InvalidRequest

LONGEST = 63
"""SageMaker's limit for names of endpoints, configurations and models."""
_DIGEST = 10
VARIANT = "main"
"""The one production variant of every endpoint."""


class Names:
    """Names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def endpoint(self, name: str) -> str:
        """An endpoint's name in SageMaker. Raises InvalidRequest where it would be too long: its
        configurations' names have a digest behind it.
        """
        made = f"{self._prefix}-{name}"
        room = LONGEST - _DIGEST - 1
        if len(made) > room:
            raise InvalidRequest(
                f"On AWS the name of this endpoint would be {made[:80]!r}, longer than {room} characters. "
                f"Choose one of at most {room - len(self._prefix) - 1}.",
                detail={"field": "name"},
            )
        return made

    def version(self, name: str, request: Mapping[str, Any]) -> str:
        """The name of a model or configuration of an endpoint that was asked for with `request`."""
        text = json.dumps(request, sort_keys=True)
        return f"{self.endpoint(name)}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}"

    def is_version(self, name: str, found: str) -> bool:
        """Whether `found` is a model or configuration of that endpoint."""
        return re.fullmatch(rf"{re.escape(self.endpoint(name))}-[0-9a-f]{{{_DIGEST}}}", found) is not None

    def resource(self, name: str) -> str:
        """What scales, as Application Auto Scaling names it."""
        return f"endpoint/{self.endpoint(name)}/variant/{VARIANT}"


def tags(given: Mapping[str, str], name: str) -> list[dict[str, str]]:
    """Tags for the bill, and the endpoint's own name."""
    both = {**given, "atelier:endpoint": name}
    return [{"Key": key, "Value": value} for key, value in sorted(both.items())]
