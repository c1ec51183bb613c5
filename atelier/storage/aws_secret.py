"""One secret of AWS Secrets Manager, read by its ARN.

It stands beside the bucket's store because workers may not know AWS's library themselves, and this folder is
where `atelier` keeps it. A worker is told the ARN and not the value: variables of a SageMaker model are shown
to everybody who may describe it.
"""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract.errors import InvalidRequest, NotPermitted

ATTEMPTS = 6


def read(arn: str, session: Any = None) -> str:
    """The secret's text; of bytes, their hexadecimal digits. Raises InvalidRequest for what is no ARN,
    NotPermitted where it cannot be read.
    """
    parts = arn.split(":")
    if len(parts) < 7 or parts[2] != "secretsmanager":
        raise InvalidRequest(
            f"{arn[:200]!r} is no ARN of a secret. Give arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME."
        )
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, connect_timeout=10, read_timeout=20
    )
    client = (session or boto3.session.Session()).client(
        "secretsmanager", region_name=parts[3], config=config
    )
    try:
        told = client.get_secret_value(SecretId=arn)
    except (BotoCoreError, ClientError) as error:
        raise NotPermitted(
            f"The secret {arn} cannot be read: {error}. Let this process's role have "
            "secretsmanager:GetSecretValue on it, and kms:Decrypt on its key."
        ) from error
    return str(told["SecretString"]).strip() if "SecretString" in told else bytes(told["SecretBinary"]).hex()
