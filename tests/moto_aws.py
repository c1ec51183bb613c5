"""AWS on loopback: a moto server in a thread, and the variables by which botocore finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

REGION = "eu-west-1"
ACCOUNT = "123456789012"


@dataclass
class Aws:
    """An account of its own behind `url`."""

    url: str
    session: Any = field(repr=False)

    def client(self, service: str) -> Any:
        """A client of a service of this account."""
        return self.session.client(service, endpoint_url=self.url)

    def bucket(self, name: str = "studio") -> str:
        """A bucket that is there and empty."""
        s3 = self.client("s3")
        if name not in [each["Name"] for each in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for each in page.get("Contents", ()):
                s3.delete_object(Bucket=name, Key=each["Key"])
        return name


@contextmanager
def running() -> Iterator[Aws]:
    """A server for as long as the block lasts, with nothing in it; botocore's variables lead to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        httpx.post(f"{url}/moto-api/reset").raise_for_status()
        with pytest.MonkeyPatch.context() as variables:
            for name, value in environment(url).items():
                variables.setenv(name, value)
            session = boto3.session.Session(
                aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION
            )
            yield Aws(url, session)
    finally:
        server.stop()


def environment(url: str) -> dict[str, str]:
    """What a process needs to take the server for AWS."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
