"""What the portal knows of its AWS account: names and addresses that a deployment's templates fill in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class AwsOptions(BaseSettings):
    """Options that count where `platform` is aws. Credentials are never among them: they come from the role
    of the task, as botocore finds it.
    """

    platform: Literal["local", "aws"] = Field(
        "local", description="Where endpoints, tasks and notifications are: on this machine, or AWS."
    )
    aws_region: str | None = Field(None, description="Region of every service; without it the session's own.")
    aws_endpoint_url: str | None = Field(
        None, description="One address for every AWS service, for a rehearsal; without it AWS's own."
    )
    aws_prefix: str = Field(
        "atelier",
        pattern=r"^[a-z](-?[a-z0-9]){0,23}$",
        max_length=24,
        description="What every name made in the account begins with.",
    )
    aws_inference_image: str | None = Field(
        None, description="Image of inference endpoints, with its digest."
    )
    aws_inference_role: str | None = Field(None, description="ARN of the role that endpoints run as.")
    aws_custom_role: str | None = Field(
        None, description="ARN of the role that custom endpoints run as; without it the endpoints' own."
    )
    aws_success_topic: str | None = Field(None, description="ARN of the SNS topic that answers are told to.")
    aws_error_topic: str | None = Field(None, description="ARN of the SNS topic that failures are told to.")
    aws_queue_url: str | None = Field(None, description="SQS queue that both topics feed.")
    aws_kms_key: str | None = Field(
        None, description="ARN of the KMS key of the bucket, the endpoints' disks and the secrets."
    )
    aws_task_cluster: str | None = Field(None, description="ECS cluster of CPU tasks.")
    aws_task_definition: str | None = Field(
        None, description="Task definition of CPU tasks, with its revision."
    )
    aws_subnets: tuple[str, ...] = Field((), description="Subnets of CPU tasks and of endpoints.")
    aws_security_groups: tuple[str, ...] = Field(
        (), description="Security groups of CPU tasks and of endpoints."
    )
    aws_tags: dict[str, str] = Field(
        {"Project": "atelier"}, description="Tags for the bill, on everything that is made."
    )
