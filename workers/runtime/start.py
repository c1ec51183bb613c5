"""How a worker's program begins: what keeps it from starting is said on stderr, and in its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydantic import ValidationError

from atelier.contract.errors import AtelierError

UNUSABLE = 2
"""The exit status of a program whose settings, or what they name, cannot be used."""


def begun(program: Callable[[], int]) -> int:
    """The exit status of `program`; UNUSABLE, with the reasons on stderr, where it cannot start."""
    try:
        return program()
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        sys.stderr.write(f"The worker's settings cannot be used:\n{faults}\n")
    except AtelierError as error:
        sys.stderr.write(f"{error.message}\n")
    return UNUSABLE
