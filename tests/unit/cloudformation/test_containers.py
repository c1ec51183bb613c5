"""What the containers are told: real settings, right values, secrets as secrets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from portal.aws_options import AwsOptions
from portal.settings import Settings as PortalSettings
from portal.settings import load
from tests.unit.cloudformation.templates import (
    BARE,
    CLOUDFRONT,
    FOLDER,
    LARGE,
    PSEUDO,
    everything,
    studio,
)
from webui.settings import Settings as WebuiSettings
from workers.runtime.settings import WorkerSettings


def containers(given: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Every container of every task definition, by its name."""
    return {
        each["Name"]: each
        for stack in studio(given).values()
        for resource in stack.resources().values()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
        for each in resource["Properties"]["ContainerDefinitions"]
    }


def told(container: dict[str, Any]) -> dict[str, str]:
    return {each["Name"]: each["Value"] for each in container.get("Environment", [])}


def secrets(container: dict[str, Any]) -> dict[str, str]:
    return {each["Name"]: each["ValueFrom"] for each in container.get("Secrets", [])}


def variables(settings: type[BaseSettings]) -> set[str]:
    return {f"ATELIER_{name.upper()}" for name in settings.model_fields}


def secret_variables(settings: type[BaseSettings]) -> set[str]:
    return {
        f"ATELIER_{name.upper()}"
        for name, field in settings.model_fields.items()
        if SecretStr.__name__ in str(field.annotation)
    }


def test_every_variable_of_the_templates_is_a_real_setting() -> None:
    written = {
        name for path in FOLDER.glob("*.yaml") for name in re.findall(r"ATELIER_[A-Z0-9_]+", path.read_text())
    }
    real = variables(PortalSettings) | variables(WebuiSettings) | variables(WorkerSettings)
    assert written
    assert written <= real, sorted(written - real)
    for given in (LARGE, CLOUDFRONT):
        made = containers(given)
        assert set(made) == ({"prepare", "portal", "webui"} | ({"tasks"} if given is LARGE else set()))
        for name, settings in (
            ("prepare", PortalSettings),
            ("portal", PortalSettings),
            ("webui", WebuiSettings),
        ):
            names = set(told(made[name])) | set(secrets(made[name]))
            assert names <= variables(settings), name


def test_the_portal_is_told_everything_it_must_know_of_its_account() -> None:
    known = told(containers(LARGE)["portal"])
    assert set(variables(AwsOptions)) - set(known) == {"ATELIER_AWS_ENDPOINT_URL"}
    without_images = told(containers(CLOUDFRONT)["portal"])
    assert set(known) - set(without_images) == {"ATELIER_AWS_INFERENCE_IMAGE", "ATELIER_AWS_TASK_DEFINITION"}


@pytest.mark.parametrize("given", [LARGE, CLOUDFRONT], ids=["certificate", "cloudfront"])
def test_portal_and_web_ui_read_what_they_are_told(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    made = containers(given)
    for name, value in (told(made["portal"]) | {"ATELIER_DATABASE_PASSWORD": "s3cret"}).items():
        monkeypatch.setenv(name, value.replace("<Database.Endpoint.Port>", "5432"))
    portal = load()
    assert portal.database.startswith("postgresql+psycopg://atelier:s3cret@")
    assert portal.database.endswith("/atelier?sslmode=require")
    assert portal.platform == "aws"
    assert portal.aws_subnets == ("<PrivateSubnetA>", "<PrivateSubnetB>")
    assert portal.aws_security_groups == ("<WorkerGroup>",)
    assert portal.aws_tags == {"Project": "atelier"}
    assert portal.hosts >= {"portal"}
    assert portal.edge == ("none" if given is LARGE else "cloudfront")
    for name, value in told(made["webui"]).items():
        monkeypatch.setenv(name, value)
    web = WebuiSettings()
    assert web.portal_url == "http://portal:8000"
    assert [str(each) for each in web.trusted_proxies] == ["10.42.0.0/16"]
    assert web.edge == portal.edge


def test_secrets_are_handed_over_as_secrets_and_the_first_password_to_its_maker_alone() -> None:
    made = containers(LARGE)
    hidden = secret_variables(PortalSettings) | secret_variables(WorkerSettings)
    assert {"ATELIER_ADMIN_PASSWORD", "ATELIER_DATABASE_PASSWORD"} <= hidden
    for name, container in made.items():
        plain = set(told(container)) & hidden
        assert plain <= {"ATELIER_DATABASE_URL"}, name
    assert "://atelier@" in told(made["portal"])["ATELIER_DATABASE_URL"], "its password stands beside it"
    assert set(secrets(made["prepare"])) == {"ATELIER_DATABASE_PASSWORD", "ATELIER_ADMIN_PASSWORD"}
    assert set(secrets(made["portal"])) == {"ATELIER_DATABASE_PASSWORD"}
    assert secrets(made["webui"]) == secrets(made["tasks"]) == {}


def test_the_portal_starts_once_the_database_is_prepared() -> None:
    made = containers(LARGE)
    assert made["prepare"]["Command"] == ["prepare"]
    assert made["prepare"]["Essential"] is False
    assert made["portal"]["DependsOn"] == [{"ContainerName": "prepare", "Condition": "SUCCESS"}]


def test_containers_write_nowhere_but_in_their_scratch_and_hold_no_capability() -> None:
    for name, container in containers(LARGE).items():
        assert container["ReadonlyRootFilesystem"] is True, name
        assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}, name
        assert "/tmp" in {each["ContainerPath"] for each in container["MountPoints"]}, name
        assert container["LogConfiguration"]["LogDriver"] == "awslogs", name


def test_the_web_ui_finds_the_portal_by_the_name_that_the_portal_has() -> None:
    made = studio(LARGE)
    connect = made["portal"].resources()["Service"]["Properties"]["ServiceConnectConfiguration"]
    (service,) = connect["Services"]
    assert service["ClientAliases"] == [{"Port": 8000, "DnsName": "portal"}]
    ports = containers(LARGE)["portal"]["PortMappings"]
    assert [each["Name"] for each in ports] == [service["PortName"]]
    assert "AppProtocol" not in ports[0], "Service Connect would end event streams after 15 s"
    assert made["main"].template["Resources"]["WebUI"]["DependsOn"] == "Portal"
    assert (
        made["webui"].resources()["Service"]["Properties"]["ServiceConnectConfiguration"]["Enabled"] is True
    )


def test_services_keep_running_through_a_deployment_and_scale() -> None:
    for name in ("portal", "webui"):
        made = studio(LARGE)[name].resources()
        deployment = made["Service"]["Properties"]["DeploymentConfiguration"]
        assert deployment["MinimumHealthyPercent"] == 100
        assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        target, policy = made["Scaling"]["Properties"], made["ScalingByProcessor"]["Properties"]
        assert 1 < int(target["MinCapacity"]) < int(target["MaxCapacity"])
        assert policy["PolicyType"] == "TargetTrackingScaling"


def test_without_images_there_is_everything_but_the_services() -> None:
    assert set(studio(LARGE)) - set(studio(BARE)) == {"portal", "webui", "cognito", "budget"}
    types = {each["Type"] for stack in studio(BARE).values() for each in stack.resources().values()}
    assert "AWS::ECR::Repository" in types
    assert "AWS::ECS::Service" not in types


def test_every_log_is_kept_so_long_and_everything_is_encrypted() -> None:
    keyed = {
        "AWS::Logs::LogGroup": ("KmsKeyId",),
        "AWS::SNS::Topic": ("KmsMasterKeyId",),
        "AWS::SQS::Queue": ("KmsMasterKeyId",),
        "AWS::SecretsManager::Secret": ("KmsKeyId",),
        "AWS::RDS::DBCluster": ("KmsKeyId", "StorageEncrypted"),
        "AWS::ECR::Repository": ("EncryptionConfiguration",),
        "AWS::S3::Bucket": ("BucketEncryption",),
        "AWS::CodeBuild::Project": ("EncryptionKey",),
    }
    seen = set()
    for name, resource, made in everything():
        for needed in keyed.get(made["Type"], ()):
            assert made["Properties"].get(needed), f"{name}: {resource} has no {needed}"
            seen.add(made["Type"])
        if made["Type"] == "AWS::Logs::LogGroup":
            assert made["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}, resource
    assert seen == set(keyed)


def test_the_database_and_what_people_made_outlive_a_mistake() -> None:
    data = studio(LARGE)["data"].resources()
    database = data["Database"]
    assert database["DeletionPolicy"] == database["UpdateReplacePolicy"] == "Snapshot"
    assert database["Properties"]["DeletionProtection"] == "true"
    assert int(database["Properties"]["BackupRetentionPeriod"]) == 14
    assert data["Bucket"]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert data["Bucket"]["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(data["Bucket"]["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    restored = studio(LARGE | {"DatabaseSnapshot": "before"})["data"].resources()["Database"]["Properties"]
    assert restored["SnapshotIdentifier"] == "before"
    assert not {"MasterUsername", "MasterUserPassword", "DatabaseName"} & set(restored)


def test_the_outputs_show_both_urls_and_the_first_passwords_secret() -> None:
    for given in (LARGE, CLOUDFRONT, BARE):
        outputs = studio(given)["main"].outputs()
        assert outputs["WebPortalUrl"] == outputs["WebUIUrl"] + "/portal/"
        assert outputs["AdminSecretArn"] == "<AdminSecret>"
    assert studio(LARGE)["main"].outputs()["WebUIUrl"] == "https://studio.example.com"
    admin = studio(LARGE)["data"].resources()["AdminSecret"]["Properties"]
    assert admin["GenerateSecretString"]["PasswordLength"] >= 20
    assert not [name for name, _, made in everything() if "NoEcho" in str(made)], "no password is a parameter"


def test_nothing_is_bound_to_one_partition() -> None:
    """China's ARNs begin with arn:aws-cn and its addresses end in .com.cn; service principals do not."""
    for path in FOLDER.glob("*.yaml"):
        for line in path.read_text().splitlines():
            assert "arn:aws:" not in line, f"{path.name}: {line.strip()}"
            host = re.search(r"[\w}.-]*\.amazonaws\.com(?!\.cn)", line)
            if host:
                assert re.fullmatch(r"[a-z0-9.-]+\.amazonaws\.com", host[0]), f"{path.name}: {line.strip()}"
                assert re.search(r"Service|Principal|aws-service-role", line), f"{path.name}: {line.strip()}"
    assert PSEUDO["AWS::Partition"] == "aws"
