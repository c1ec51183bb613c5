"""What SageMaker is asked for: model, endpoint configuration and endpoint, from an EndpointSpec.

Shapes: API reference of CreateModel, CreateEndpointConfig, CreateEndpoint, UpdateEndpoint. Values of a
container's environment have at most 1,024 characters: so nothing long stands there. The models are named by
the endpoint's catalogue in the store, which a worker finds by its endpoint's name, and the key of jobs by the
ARN of its secret, which it reads at its start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atelier.contract.errors import InvalidRequest, NotReady
from portal.adapters.aws.instances import offered
from portal.adapters.aws.names import VARIANT, Names, tags
from portal.aws_options import AwsOptions
from portal.services.ports import EndpointKind, EndpointSpec, InstanceType

STARTUP_SECONDS = 1200
"""How long a worker may take from its container's start until it answers /ping."""
VOLUME_GB = 256
"""Disk of instances that have none of their own."""
GPU_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Host image with a driver (580) for CUDA 13, which the CUDA build of the pinned torch wants; the default
host image's driver is years older.
"""
LONGEST_VALUE = 1024
CACHE = "/tmp/atelier/models"  # noqa: S108  where SageMaker mounts an instance's own disk
CACHE_SHARE = 0.8


@dataclass(frozen=True)
class Container:
    """What every worker of a deployment is told: where the store is, which secret signs jobs, further
    ATELIER_ settings. `answers` and `failures` are where SageMaker puts what an asynchronous call came to,
    as s3:// folders.
    """

    store_url: str
    job_key_arn: str
    settings: Mapping[str, str]
    answers: Callable[[EndpointSpec], str]
    failures: Callable[[EndpointSpec], str]


@dataclass(frozen=True)
class Wanted:
    """The requests that make an endpoint, each complete."""

    model: dict[str, Any]
    config: dict[str, Any]
    endpoint: dict[str, Any]


def wanted(spec: EndpointSpec, names: Names, options: AwsOptions, container: Container) -> Wanted:
    """The requests for an endpoint. Raises NotReady where the deployment lacks something."""
    labels = tags(options.aws_tags, spec.name)
    model = _model(spec, options, container)
    model_name = names.version(spec.name, model)
    config = _config(spec, options, container)
    config["ProductionVariants"][0]["ModelName"] = model_name
    config_name = names.version(spec.name, config)
    # How many there are first is no reason for another configuration: from then on they scale.
    config["ProductionVariants"][0]["InitialInstanceCount"] = max(1, spec.min_instances)
    return Wanted(
        {**model, "ModelName": model_name, "Tags": labels},
        {**config, "EndpointConfigName": config_name, "Tags": labels},
        {"EndpointName": names.endpoint(spec.name), "EndpointConfigName": config_name, "Tags": labels},
    )


def _model(spec: EndpointSpec, options: AwsOptions, container: Container) -> dict[str, Any]:
    image = spec.image or options.aws_inference_image
    if not image:
        raise NotReady("No image is known for endpoints. Set ATELIER_AWS_INFERENCE_IMAGE (docs/settings.md).")
    if not options.aws_inference_role:
        raise NotReady("No role is known for endpoints. Set ATELIER_AWS_INFERENCE_ROLE (docs/settings.md).")
    custom = EndpointKind(spec.kind).custom
    values = {} if custom else environment(spec, container)
    request: dict[str, Any] = {
        "ExecutionRoleArn": (custom and options.aws_custom_role) or options.aws_inference_role,
        "PrimaryContainer": {"Image": image, "Mode": "SingleModel", "Environment": values},
    }
    if options.aws_subnets and options.aws_security_groups:
        request["VpcConfig"] = {
            "Subnets": list(options.aws_subnets),
            "SecurityGroupIds": list(options.aws_security_groups),
        }
    return request


def environment(spec: EndpointSpec, container: Container) -> dict[str, str]:
    """A worker's variables. Raises InvalidRequest where one is longer than SageMaker takes."""
    kind = offered(spec.instance_type)
    values = {
        **container.settings,
        "ATELIER_STORE": container.store_url,
        "ATELIER_ENDPOINT": spec.name,
        "ATELIER_JOB_KEY_ARN": container.job_key_arn,
        "ATELIER_HOST": "0.0.0.0",  # noqa: S104  inside a container that SageMaker alone reaches
        "ATELIER_MAX_INVOCATIONS": str(max(64, 2 * spec.slots)),
        "ATELIER_MODEL_CACHE": CACHE,
        "HF_HUB_OFFLINE": "1",
        **(_by_kind(kind) if kind else {}),
        **{f"ATELIER_{name.upper()}": value for name, value in spec.options.items()},
    }
    for name, value in values.items():
        if len(value) > LONGEST_VALUE:
            raise InvalidRequest(
                f"{name} would have {len(value)} characters; SageMaker takes {LONGEST_VALUE} of a variable."
            )
    return values


def _by_kind(kind: InstanceType) -> dict[str, str]:
    """What the kind of instance decides: in what it computes, and how many model files it keeps."""
    disk = kind.disk or VOLUME_GB * 10**9
    return {
        "ATELIER_DEVICE": kind.device,
        "ATELIER_DTYPE": precisions(kind)[0],
        "ATELIER_MODEL_CACHE_BYTES": str(int(disk * CACHE_SHARE)),
    }


def precisions(kind: InstanceType) -> tuple[str, ...]:
    """Number formats an endpoint on such instances may choose from, the usual one first: float16 wherever
    there is a GPU, which is what the peer computes in and nearer to float32 than bfloat16 is.
    """
    if kind.device != "cuda":
        return ("float32",)
    return ("float16", "bfloat16", "float32") if kind.bf16 else ("float16", "float32")


def _config(spec: EndpointSpec, options: AwsOptions, container: Container) -> dict[str, Any]:
    kind = offered(spec.instance_type)
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "InstanceType": spec.instance_type,
        "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
    }
    request: dict[str, Any] = {"ProductionVariants": [variant]}
    if kind is not None and not kind.disk:
        variant["VolumeSizeInGB"] = VOLUME_GB
        if options.aws_kms_key:
            request["KmsKeyId"] = options.aws_kms_key
    if kind is not None and kind.gpu not in ("", "V100"):  # CUDA 13 knows no Volta
        variant["InferenceAmiVersion"] = GPU_AMI
    if EndpointKind(spec.kind).waits:
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    else:
        request["AsyncInferenceConfig"] = _asynchronous(spec, options, container)
    return request


def _asynchronous(spec: EndpointSpec, options: AwsOptions, container: Container) -> dict[str, Any]:
    output: dict[str, Any] = {
        "S3OutputPath": container.answers(spec),
        "S3FailurePath": container.failures(spec),
    }
    if options.aws_kms_key:
        output["KmsKeyId"] = options.aws_kms_key
    told = not EndpointKind(spec.kind).custom  # nobody waits for notices of those
    if told and options.aws_success_topic and options.aws_error_topic:
        output["NotificationConfig"] = {
            "SuccessTopic": options.aws_success_topic,
            "ErrorTopic": options.aws_error_topic,
        }
    return {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": spec.slots},
        "OutputConfig": output,
    }
