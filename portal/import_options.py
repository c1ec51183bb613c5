"""From where models may be imported: a deployment's own rules."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field
from pydantic_settings import BaseSettings

from atelier.modelsource import HUB

HOSTS = (
    "huggingface.co", "*.huggingface.co", "*.hf.co", "civitai.com", "*.civitai.com",
    "*.r2.cloudflarestorage.com",
)  # fmt: skip
"""The two places that models are shared at, and where they keep the files."""


class ImportOptions(BaseSettings):
    """Options of imports by address."""

    import_hosts: tuple[str, ...] = Field(
        HOSTS,
        description="Hosts (`name`, `*.name`, or `*` for every public one) that users import models of their "
        "own from; who looks after models may name any public host.",
    )
    import_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Private networks with mirrors that may be imported from, over http and any port too."
    )
    import_buckets: tuple[str, ...] = Field(
        (), description="Buckets of S3 (`bucket` or `bucket/prefix`) that models may be imported from."
    )
    import_hours: float = Field(6.0, gt=0, le=168, description="Hours that an import may take.")
    import_tasks: int = Field(2, ge=1, le=64, description="How many imports are at work at once.")
    hub_url: str = Field(
        HUB, pattern=r"^https?://[^/\s]+/?$", description="The Hugging Face Hub, or a mirror of it."
    )
