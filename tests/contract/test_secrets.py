"""What every adapter of the Secrets port keeps, on one machine and on AWS."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atelier.contract.errors import StorageFailed
from portal.adapters.aws.secrets import AwsSecrets
from portal.adapters.local.secrets import FileSecrets
from portal.services.ports import Secrets
from tests.moto_aws import Aws

Another = Callable[[], Secrets]
"""Makes the secrets of another process of the same deployment."""


@pytest.fixture(params=["files", "aws"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Another:
    if request.param == "files":
        return lambda: FileSecrets(tmp_path / "secrets")
    account: Aws = request.getfixturevalue("aws")
    prefix = f"studio-{uuid.uuid4().hex[:8]}"
    client = account.client("secretsmanager")
    return lambda: AwsSecrets(client, prefix)


class TestSecrets:
    def test_a_secret_is_made_at_first_use_and_the_same_in_every_process(self, another: Another) -> None:
        first = another().get("signing-key")
        assert len(first) >= 32
        assert another().get("signing-key") == first
        assert another().get("job-key") != first

    def test_processes_that_start_together_have_the_same_secret(self, another: Another) -> None:
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(another().get, "audit-key") for _ in range(8)]
            assert len({each.result(60) for each in asked}) == 1

    @pytest.mark.parametrize("name", ["", "../up", "A", "a/b", "x" * 65])
    def test_a_name_that_could_lead_elsewhere_is_refused(self, another: Another, name: str) -> None:
        with pytest.raises(ValueError, match="no name of a secret"):
            another().get(name)


def test_on_aws_it_is_sealed_with_the_deployments_key_tagged_and_named_by_its_arn(aws: Aws) -> None:
    client = aws.client("secretsmanager")
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    secrets = AwsSecrets(client, "mine", kms_key=key, labels={"Project": "mine"})
    told = client.describe_secret(SecretId=secrets.arn("job-key"))
    assert (told["Name"], told["KmsKeyId"]) == ("mine/keys/job-key", key)
    assert told["Tags"] == [{"Key": "Project", "Value": "mine"}]
    assert client.get_secret_value(SecretId="mine/keys/job-key")["SecretString"] == (
        secrets.get("job-key").hex()
    )


def test_on_aws_what_somebody_else_wrote_or_is_deleting_is_refused_with_what_to_do(aws: Aws) -> None:
    client = aws.client("secretsmanager")
    client.create_secret(Name="other/keys/signing-key", SecretString="password")
    with pytest.raises(StorageFailed, match="64 hexadecimal digits"):
        AwsSecrets(client, "other").get("signing-key")
    client.delete_secret(SecretId="other/keys/signing-key")
    with pytest.raises(StorageFailed, match="restore-secret --secret-id other/keys/signing-key"):
        AwsSecrets(client, "other").get("signing-key")
