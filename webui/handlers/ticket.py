"""How a handler tells the page's script what came of an event."""

from __future__ import annotations

import json
import uuid

from atelier.contract.errors import AtelierError


def ticket(*, job: str | None = None, error: AtelierError | None = None, notes: tuple[str, ...] = ()) -> str:
    """What the script reads: the accepted job, why there is none, or what else there is to say. The serial
    tells two equal answers apart.
    """
    return json.dumps(
        {
            "serial": uuid.uuid4().hex,
            "job": job,
            "error": error.body() if error else None,
            "notes": list(notes),
        }
    )
