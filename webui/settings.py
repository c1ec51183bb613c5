"""Every option of the web UI's process: one frozen object, from ATELIER_* variables and atelier.toml."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """The process's settings. A variable beats atelier.toml, which beats the default written here."""

    model_config = SettingsConfigDict(
        env_prefix="ATELIER_", toml_file=Path("atelier.toml"), frozen=True, extra="ignore"
    )

    host: str = Field("127.0.0.1", description="Address the web UI listens on.")
    port: int = Field(7860, ge=0, le=65535, description="Port the web UI listens on.")
    portal_url: str = Field("http://127.0.0.1:8000", description="Where the web UI reaches the portal.")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Networks of load balancers whose X-Forwarded-For and -Proto the web UI believes."
    )
    edge: Literal["none", "cloudfront"] = Field(
        "none",
        description="What stands before the load balancer and ends TLS there: every request then counts as "
        "one over https.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What the logs hold.")
    log_format: Literal["json", "text"] | None = Field(
        None, description="How logs are written; without it text at a terminal, else JSON lines."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then atelier.toml of the working directory."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
