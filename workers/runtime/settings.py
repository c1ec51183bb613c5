"""A worker's settings: one frozen object, read once from the environment by the entry point."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from atelier.contract import limits
from atelier.contract.acceleration import Attention
from atelier.contract.errors import InvalidRequest


def own_name() -> str:
    """A name for this worker that no other has."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:100]
    return f"{host or 'worker'}-{secrets.token_hex(4)}"


class ComputeSettings(BaseSettings):
    """How the networks are computed: the part of the settings that is of use without a store."""

    model_config = SettingsConfigDict(
        env_prefix="ATELIER_", frozen=True, extra="ignore", populate_by_name=True
    )

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes CUDA where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The networks' number format; auto means float16 on CUDA and float32 on the CPU."""
    attention: Attention = "auto"
    """How attention is computed; what the device cannot do is replaced by PyTorch's own choice, and the log
    says why.
    """
    channels_last: bool | None = None
    """Whether weights of convolutions lie channels last; None leaves it to the engine: on a GPU."""


class WorkerSettings(ComputeSettings):
    """Every option of a worker; `ATELIER_<NAME>` sets each but the port, which is SageMaker's variable."""

    store: str
    """URL of the blob store: file:///absolute/path or s3://bucket/prefix."""
    endpoint: str = Field(pattern=r"^[A-Za-z0-9](-*[A-Za-z0-9]){0,62}$")
    """The endpoint this worker belongs to; bodies signed for another are refused."""
    instance: str = Field(default_factory=own_name, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """The worker's name within its endpoint; by default the host's name and a random end, since SageMaker
    gives hosts of one endpoint the same name.
    """
    host: str = "127.0.0.1"
    """The address to listen on; a container image sets 0.0.0.0."""
    port: int = Field(8080, ge=0, le=65535, validation_alias="SAGEMAKER_BIND_TO_PORT")
    """The port to listen on; 0 takes a free one, which the log names."""
    worker_token: SecretStr | None = None
    """Bearer token that /invocations asks for; None where the platform guards the port (SageMaker)."""
    job_key: SecretStr | None = None
    """The deployment's signing key, at least 32 characters, used as its UTF-8 bytes. Without it every job is
    refused.
    """
    job_key_arn: str | None = None
    """ARN of the secret in AWS Secrets Manager that holds the signing key: read once at the start, where
    `job_key` is not given.
    """
    model_cache: Path = Path("model-cache")
    """Folder of model files fetched from the store."""
    model_cache_bytes: int = Field(40 * 2**30, ge=0)
    """How much the folder may hold; the least recently used files go first."""
    baked_models: Path | None = None
    """Folder of model files that came with the container image, each named by the sha256 of its bytes."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of one operation; None leaves the choice to torch."""
    model_memory: int | None = Field(None, ge=0)
    """Bytes of host memory for weights that are not in a slot; None leaves the choice to the engine."""
    cuda_graphs: int = Field(8, ge=0)
    """How many kinds of batches (size, rows, prompt length) are recorded as CUDA graphs; 0 records none."""
    output: Literal["base64", "s3"] = "base64"
    """Where pictures of direct calls go that do not say it: into the answer, or (s3) into the store, whose
    locations are the answer.
    """
    max_invocations: int = Field(64, ge=1)
    """Requests in work at once; a further one is told to come again (429)."""
    max_body_bytes: int = Field(limits.MAX_BODY_BYTES, ge=1)
    """Largest body of a request."""
    drain_seconds: float = Field(25.0, ge=0)
    """How long running parts may go on after SIGTERM; SageMaker kills after 30."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] | None = None
    """How logs are written; None means text at a terminal, else JSON lines."""

    @model_validator(mode="after")
    def _strong_secrets(self) -> Self:
        for name in ("worker_token", "job_key"):
            secret: SecretStr | None = getattr(self, name)
            if secret is not None and len(secret.get_secret_value()) < 32:
                raise ValueError(f"ATELIER_{name.upper()} needs at least 32 characters")
        return self

    def with_secrets(self) -> Self:
        """These settings with the signing key that `job_key_arn` names. Raises AtelierError."""
        if self.job_key is not None or self.job_key_arn is None:
            return self
        from atelier.storage import aws_secret  # brings boto3, which only a worker on AWS needs

        key = aws_secret.read(self.job_key_arn)
        if len(key) < 32:
            raise InvalidRequest("The secret that ATELIER_JOB_KEY_ARN names needs at least 32 characters.")
        return self.model_copy(update={"job_key": SecretStr(key)})

    @property
    def signing_key(self) -> bytes:
        """The bytes that signatures of jobs are made with; empty where no job may be accepted."""
        return self.job_key.get_secret_value().encode() if self.job_key else b""

    @property
    def token(self) -> str | None:
        """The bearer token that /invocations asks for, if any."""
        return self.worker_token.get_secret_value() if self.worker_token else None

    def redacted(self) -> dict[str, str]:
        """Every setting as text, secrets hidden: what the log shows at the start."""
        return {name: str(getattr(self, name)) for name in type(self).model_fields}
