"""boto3 clients for the adapters: one region, one address, tries with growing pauses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import NoRegionError

from atelier.contract.errors import NotReady
from portal.aws_options import AwsOptions

ATTEMPTS = 5
"""Tries of a call that AWS throttles or that does not reach it; pauses double, up to 20 s (botocore's
standard mode).
"""
READ_SECONDS = 65
"""A realtime endpoint answers within 60 s or not at all; queues are listened to for 20."""
CONNECTIONS = 50


def clients(options: AwsOptions, session: Any = None) -> Callable[[str], Any]:
    """A client by the name of its service, made at first use. Safe for threads. Giving one raises NotReady
    where no region is known.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
    )
    special = {
        # Calls that wait for pictures are not made twice: the worker would make them twice.
        "sagemaker-runtime": Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        # Many pages that nobody depends on.
        "service-quotas": Config(retries={"total_max_attempts": 2, "mode": "standard"}),
    }
    lock = threading.Lock()
    made: dict[str, Any] = {}
    opened: list[Any] = [session]

    def client(service: str) -> Any:
        with lock:
            if service not in made:
                opened[0] = opened[0] or boto3.session.Session(region_name=options.aws_region)
                try:
                    made[service] = opened[0].client(
                        service,
                        region_name=options.aws_region,
                        endpoint_url=options.aws_endpoint_url,
                        config=config.merge(special[service]) if service in special else config,
                    )
                except NoRegionError as error:
                    raise NotReady(
                        "The studio runs on AWS and does not know in which region. Set ATELIER_AWS_REGION."
                    ) from error
            return made[service]

    return client
