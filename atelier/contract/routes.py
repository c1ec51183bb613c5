"""Which process owns which path. One table feeds webui's proxy, a load balancer's rules and the permission
walk.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prefix:
    """A path prefix of our one origin, the process that answers it, whether it is public."""

    path: str
    owner: str
    public: bool


PREFIXES: tuple[Prefix, ...] = (
    Prefix("/portal", "portal", False),
    Prefix("/api", "portal", False),
    Prefix("/files", "portal", False),
    Prefix("/sdapi", "portal", False),
    Prefix("/controlnet", "portal", False),
    Prefix("/internal", "portal", False),
    Prefix("/sd_extra_networks", "portal", False),
    Prefix("/inference", "portal", False),
    Prefix("/train", "portal", False),
    Prefix("/oauth", "portal", False),
    Prefix("/docs", "portal", False),
    Prefix("/openapi.json", "portal", False),
    Prefix("/healthz", "portal", True),
    Prefix("/readyz", "portal", True),
)

PROGRAM_PREFIXES: tuple[str, ...] = ("/sdapi", "/controlnet", "/internal", "/inference", "/train")
"""Prefixes for programs: Basic or Bearer only, never the browser's cookie."""


def owner_of(path: str) -> str:
    """The process that answers `path`: "portal" for the prefixes of the table, else "webui"."""
    for prefix in PREFIXES:
        if path == prefix.path or path.startswith(prefix.path + "/"):
            return prefix.owner
    return "webui"


def for_programs(path: str) -> bool:
    """Whether `path` is for programs, where the browser's cookie is no credential."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in PROGRAM_PREFIXES)
