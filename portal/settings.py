"""Every option of the portal and of `atelier up`: one frozen object, from ATELIER_* variables and
atelier.toml.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url

from atelier.contract.acceleration import Attention
from atelier.contract.errors import InvalidRequest
from atelier.contract.limits import MAX_BODY_BYTES
from atelier.storage.opening import with_options
from portal.aws_options import AwsOptions
from portal.import_options import ImportOptions

PREFIX = "ATELIER_"
TOML = Path("atelier.toml")


class Settings(AwsOptions, ImportOptions):
    """The process's settings. A variable beats atelier.toml, which beats the default written here."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file=TOML, frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path("data"), description="Where the database, the blob store, secrets and logs live."
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL; without it SQLite in the data directory."
    )
    database_password: SecretStr | None = Field(
        None, description="Password of the database's user, where the URL does not say it."
    )
    store_url: str | None = Field(
        None,
        description="Blob store URL, `file:///path` or `s3://bucket/prefix`; without it `store/` in the data "
        "directory.",
    )

    host: str = Field("127.0.0.1", description="Address the web UI listens on.")
    port: int = Field(7860, ge=0, le=65535, description="Port the web UI listens on.")
    portal_host: str = Field("127.0.0.1", description="Address the portal listens on.")
    portal_port: int = Field(8000, ge=0, le=65535, description="Port the portal listens on.")
    public_url: str | None = Field(None, description="The URL people open; without it the web UI's own.")
    allowed_hosts: tuple[str, ...] = Field((), description="Further host names to answer under.")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        description="Networks whose X-Forwarded-For, -Host and -Proto headers are believed.",
    )
    edge: Literal["none", "cloudfront"] = Field(
        "none",
        description="What stands before the load balancer and ends TLS there: every request that a trusted "
        "proxy passes on is then believed to have come over https.",
    )
    insecure_http: bool = Field(False, description="Allow logins over plain http from other machines.")
    answer_seconds: float | None = Field(
        None, ge=1, le=3600, description="The longest a call waits for its pictures; then 504 names its job."
    )
    max_body_bytes: int = Field(MAX_BODY_BYTES, gt=0, description="The largest request body.")
    max_model_bytes: int = Field(
        32 * 2**30, gt=0, description="The largest model file that may be uploaded or imported."
    )

    admin_password: SecretStr | None = Field(
        None, description="Password of the first user, admin; else generated."
    )
    password_min_length: int = Field(
        12, ge=8, le=128, description="The shortest password a person may choose."
    )
    access_minutes: float = Field(15, gt=0, le=60, description="Lifetime of an access token, in minutes.")
    session_days: float = Field(14, gt=0, le=90, description="Days until a login must be repeated.")

    roles: tuple[Literal["api", "dispatcher"], ...] = Field(
        ("api", "dispatcher"), description="What this portal process does."
    )
    demo_checkpoint: Path | None = Field(
        Path("models/atelier-demo.safetensors"),
        description="Checkpoint registered at first start, if it exists.",
    )
    worker_threads: int | None = Field(
        None, ge=1, le=256, description="CPU threads of the first endpoint's worker; without it every core's."
    )
    worker_device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where local workers compute.")
    worker_attention: Attention = Field("auto", description="How local workers compute attention.")
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

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        if self.database_url is not None:
            url = self.database_url.get_secret_value()
            secret = self.database_password
            if secret is None or make_url(url).password is not None:
                return url
            with_secret = make_url(url).set(password=secret.get_secret_value())
            return with_secret.render_as_string(hide_password=False)
        return f"sqlite:///{self.data_dir.resolve() / 'atelier.db'}"

    @property
    def store(self) -> str:
        """The blob store's URL in force; a bucket's says all that a worker needs to open it."""
        url = self.store_url or (self.data_dir.resolve() / "store").as_uri()
        return with_options(
            url, region=self.aws_region, endpoint_url=self.aws_endpoint_url, kms_key=self.aws_kms_key
        )

    @property
    def secrets_dir(self) -> Path:
        """Where the deployment's secrets are, mode 0600."""
        return self.data_dir / "secrets"

    @property
    def url(self) -> str:
        """The URL people open, without a slash at its end."""
        return (self.public_url or self.local_url).rstrip("/")

    @property
    def local_url(self) -> str:
        """Where the web UI answers on this machine."""
        return f"http://{_reachable(self.host)}:{self.port}"

    @property
    def portal_url(self) -> str:
        """Where the portal itself answers on this machine."""
        return f"http://{_reachable(self.portal_host)}:{self.portal_port}"

    @property
    def hosts(self) -> frozenset[str]:
        """Lower-case host names the portal answers under, beside loopback names and plain addresses."""
        public = urlsplit(self.public_url or "").hostname
        return frozenset(
            name.lower() for name in (*self.allowed_hosts, public, self.host, self.portal_host) if name
        )


def _reachable(host: str) -> str:
    """An address to connect to for one that is listened on."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host


def load(**given: object) -> Settings:
    """The settings of this process; `given` beats variables and file. Raises InvalidRequest naming all that
    is wrong.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = [f"{_variable(each['loc'])}: {each['msg']}." for each in error.errors()]
        raise InvalidRequest(f"The settings cannot be used. {' '.join(wrong)}") from error


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give another process these settings: what was set here, never the first user's
    password.
    """
    given = settings.model_dump(mode="json", include=settings.model_fields_set - {"admin_password"})
    secrets = {name: getattr(settings, name) for name in given}
    found = {}
    for name, value in given.items():
        secret = secrets[name]
        plain = secret.get_secret_value() if isinstance(secret, SecretStr) else value
        if plain is not None:
            found[PREFIX + name.upper()] = plain if isinstance(plain, str) else json.dumps(plain)
    return found


def redacted(settings: Settings) -> dict[str, str]:
    """Every setting by its variable's name, secrets hidden."""
    shown = {}
    for name, value in settings:
        shown[PREFIX + name.upper()] = "***" if isinstance(value, SecretStr) else _plain(value)
    return shown


def _variable(where: tuple[int | str, ...]) -> str:
    return PREFIX + "_".join(map(str, where)).upper()


def _plain(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
