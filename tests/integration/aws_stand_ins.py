"""Stand-ins for `aws`, `docker` and `zip` on the PATH of a script: small programs that pass their words on to
this process, which writes them down and answers.

`Recorded` answers by patterns; `OnMoto` does what the AWS CLI would, on moto. Both hold every command line of
`aws` against botocore's own descriptions of the services, so that an option that does not exist is noticed.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import shutil
import socketserver
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import jmespath
from botocore import xform_name
from botocore.exceptions import ClientError, WaiterError

TOOLS = (
    "bash env dirname mktemp rm tr grep sed awk find sort xargs sha256sum cut cat head tail date sleep"
).split()
"""What of the machine the scripts may use; nothing else is on their PATH."""
OWN_COMMANDS = {("s3", "cp"), ("s3", "rm"), ("ecr", "get-login-password")}
"""Commands that the CLI adds to what the services have."""
GENERAL = {"region", "query", "output", "max-items"}
SERVICES = {"s3api": "s3", "wait": "wait"}

STUB = """#!{bash}
case " $* " in *" --password-stdin "*) set -- "$@" "stdin=$(cat)" ;; esac
exec 4<>/dev/tcp/127.0.0.1/{port}
printf '%s\\0' "$(($# + 1))" "${{0##*/}}" "$@" >&4
IFS= read -r -d '' code <&4
IFS= read -r -d '' out <&4
IFS= read -r -d '' err <&4
printf '%s' "$out"
printf '%s' "$err" >&2
exit "$code"
"""


@dataclass(frozen=True)
class Reply:
    """What a program prints, and its exit status."""

    out: str = ""
    code: int = 0
    err: str = ""


Answer = Callable[[list[str]], Reply]


@dataclass
class Ended:
    """A script that has ended: its status, what it printed, and the command lines it ran, in order."""

    code: int
    out: str
    err: str
    commands: list[list[str]] = field(default_factory=list)

    def lines(self, *start: str) -> list[list[str]]:
        """The command lines that begin with these words."""
        return [each for each in self.commands if each[: len(start)] == list(start)]


class StandIns:
    """A PATH on which some programs are ours, for as long as it is open."""

    def __init__(self, folder: Path, programs: Sequence[str] = ("aws", "docker", "zip")) -> None:
        self._bin = folder
        self._bin.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.answer: Answer = lambda words: Reply()
        self.commands: list[list[str]] = []
        self.faults: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                words = [_word(self.rfile) for _ in range(int(_word(self.rfile)))]
                reply = outer._heard(words)
                self.wfile.write("".join(f"{each}\0" for each in (reply.code, reply.out, reply.err)).encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        for name in TOOLS:
            place = shutil.which(name)
            assert place, f"this machine has no {name}"
            (self._bin / name).symlink_to(place)
        for name in programs:
            stub = STUB.format(bash=shutil.which("bash"), port=self._server.server_address[1])
            (self._bin / name).write_text(stub, encoding="utf-8")
            (self._bin / name).chmod(0o755)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def run(self, script: Path, *words: str, text: str | None = None, **variables: str) -> Ended:
        """Run a script with what is on the PATH and nothing of this process's environment; `text` is typed.
        Fails where a command line was none.
        """
        self.commands, self.faults = [], []
        ended = subprocess.run(
            [str(self._bin / "bash"), str(script), *words],
            env={"PATH": str(self._bin), "HOME": str(self._bin), "LC_ALL": "C", **variables},
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not self.faults, "\n".join(self.faults)
        return Ended(ended.returncode, ended.stdout, ended.stderr, self.commands)

    def _heard(self, words: list[str]) -> Reply:
        with self._lock:
            self.commands.append(words)
            try:
                if words[0] == "aws":
                    check_words(words[1:])
                if words[0] == "zip":
                    return _zipped(words[1:])
                return self.answer(words)
            except Exception as error:  # noqa: BLE001  # `run` raises it, in the test's own thread
                self.faults.append(f"{type(error).__name__}: {error}")
                return Reply(code=250, err="the stand-in failed\n")


def _word(stream: Any) -> str:
    found = bytearray()
    while (byte := stream.read(1)) != b"\0":
        if not byte:
            break
        found += byte
    return found.decode()


def _zipped(words: list[str]) -> Reply:
    """A zip of the given files and folders; paths from where the script stands are not needed here."""
    place = next(each for each in words if each.endswith(".zip"))
    with zipfile.ZipFile(place, "w") as made:
        made.writestr("words.txt", " ".join(words))
    return Reply()


@contextmanager
def stand_ins(folder: Path, programs: Sequence[str] = ("aws", "docker", "zip")) -> Iterator[StandIns]:
    """Stand-ins for as long as the context lasts."""
    made = StandIns(folder, programs)
    try:
        yield made
    finally:
        made.close()


# --- What the AWS CLI understands.


@dataclass(frozen=True)
class Call:
    """A command line of the CLI, taken apart: option -> its words."""

    service: str
    command: str
    options: dict[str, list[str]]
    region: str


def parsed(words: Sequence[str]) -> Call:
    """The call of `aws --region R SERVICE COMMAND --option word...`."""
    assert words[0] == "--region", words
    options: dict[str, list[str]] = {}
    name = ""
    for each in words[4:]:
        if each.startswith("--"):
            name = each[2:]
            options.setdefault(name, [])
        else:
            options.setdefault(name, []).append(each)
    return Call(words[2], words[3], options, words[1])


_SESSION = botocore.session.get_session()
_MODELS: dict[str, Any] = {}


def _model(service: str) -> Any:
    name = SERVICES.get(service, service)
    if name not in _MODELS:
        _MODELS[name] = _SESSION.get_service_model(name)
    return _MODELS[name]


def check_words(words: Sequence[str]) -> None:
    """Raises AssertionError for a command or an option that the CLI has not, or a required one that lacks."""
    call = parsed(words)
    if "query" in call.options:
        jmespath.compile(call.options["query"][0])
    if (call.service, call.command) in OWN_COMMANDS:
        return
    if call.command == "wait":
        waiter = call.options[""][0]
        known = {xform_name(each, "-") for each in _SESSION.get_waiter_model(call.service).waiter_names}
        assert waiter in known, f"{call.service} has no waiter {waiter}"
        return
    shape = _operation(call).input_shape
    members = {xform_name(each, "-"): each for each in (shape.members if shape else {})}
    for name in call.options:
        plain = name.removeprefix("no-") if name not in members else name
        assert name in GENERAL or plain in members, f"{call.service} {call.command} has no option --{name}"
    required = {xform_name(each, "-") for each in (shape.required_members if shape else ())}
    assert required <= set(call.options), (
        f"{call.service} {call.command} needs {required - set(call.options)}"
    )


def _operation(call: Call) -> Any:
    model = _model(call.service)
    found = [each for each in model.operation_names if xform_name(each, "-") == call.command]
    assert found, f"{call.service} has no command {call.command}"
    return model.operation_model(found[0])


# --- The CLI on moto.


class OnMoto:
    """Answers `aws` with what moto says, and `docker` with images that `push` puts into moto's registry."""

    def __init__(self, region: str) -> None:
        self._session = boto3.Session("testing", "testing", region_name=region)
        self.refused: dict[tuple[str, str], str] = {}
        """(service, command) -> what AWS says instead."""

    def __call__(self, words: list[str]) -> Reply:
        if words[0] == "docker":
            return self._docker(words[1:])
        call = parsed(words[1:])
        if (call.service, call.command) in self.refused:
            return Reply(code=254, err=self.refused[call.service, call.command])
        try:
            return self._done(call)
        except (ClientError, WaiterError) as error:
            return Reply(code=254, err=f"\nAn error occurred: {error}\n")

    def client(self, service: str) -> Any:
        """A client of boto3 for what the CLI calls `service`."""
        return self._session.client(SERVICES.get(service, service))

    def _docker(self, words: list[str]) -> Reply:
        if words[:2] == ["image", "inspect"]:
            return Reply(code=1, err="No such image\n")
        if words[0] == "push":
            _, _, rest = words[-1].partition("/")
            repository, _, tag = rest.rpartition(":")
            manifest = {"schemaVersion": 2, "config": {"digest": hashlib.sha256(tag.encode()).hexdigest()}}
            self.client("ecr").put_image(
                repositoryName=repository,
                imageManifest=json.dumps(manifest | {"layers": []}),
                imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
                imageTag=tag,
            )
        return Reply("28.0.0\n" if words[0] == "version" else "")

    def _done(self, call: Call) -> Reply:
        if call.service == "s3":
            return self._s3(call)
        if call.command == "get-login-password":
            return Reply("password\n")
        if call.command == "wait":
            client = self.client(call.service)
            waiter = client.get_waiter(call.options[""][0].replace("-", "_"))
            asked = client.meta.service_model.operation_model(waiter.config.operation).input_shape
            given = {
                name: _value(member, call.options[xform_name(name, "-")])
                for name, member in asked.members.items()
                if xform_name(name, "-") in call.options
            }
            waiter.wait(**given, WaiterConfig={"Delay": 0, "MaxAttempts": 1})
            return Reply()
        operation = _operation(call)
        given = {
            name: _value(member, call.options[xform_name(name, "-")])
            for name, member in (operation.input_shape.members if operation.input_shape else {}).items()
            if xform_name(name, "-") in call.options
        }
        for name in operation.input_shape.members if operation.input_shape else ():
            if f"no-{xform_name(name, '-')}" in call.options:
                given[name] = False
        client, method = self.client(call.service), xform_name(operation.name)
        if method == "update_stack":
            given["Parameters"] = [self._kept(given["StackName"], each) for each in given["Parameters"]]
        if method == "delete_stack":
            self._empty_repositories()  # moto knows no EmptyOnDelete
        if client.can_paginate(method):
            told = client.get_paginator(method).paginate(**given).build_full_result()
        else:
            told = getattr(client, method)(**given)
        told.pop("ResponseMetadata", None)
        return Reply(_shown(told, call.options))

    def _empty_repositories(self) -> None:
        registry = self.client("ecr")
        for name in (each["repositoryName"] for each in registry.describe_repositories()["repositories"]):
            images = registry.list_images(repositoryName=name)["imageIds"]
            registry.batch_delete_image(repositoryName=name, imageIds=images)

    def _kept(self, stack: str, parameter: dict[str, Any]) -> dict[str, str]:
        """A parameter that keeps its value, with it: moto forgets the defaults."""
        if not parameter.get("UsePreviousValue"):
            return parameter
        [told] = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return next(each for each in told["Parameters"] if each["ParameterKey"] == parameter["ParameterKey"])

    def _s3(self, call: Call) -> Reply:
        source, *rest = call.options.get("", [])
        if call.command == "rm":
            bucket, _, start = source.removeprefix("s3://").partition("/")
            for each in self._keys(bucket, start):
                if _included(each.removeprefix(start), call):
                    self.client("s3").delete_object(Bucket=bucket, Key=each)
            return Reply()
        bucket, _, key = rest[0].removeprefix("s3://").partition("/")
        path = Path(source)
        if not path.is_absolute():
            path = self.standing / path
        files = [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.is_file()]
        for each in files:
            name = each.relative_to(path).as_posix() if path.is_dir() else ""
            if not name or _included(name, call):
                target = f"{key}/{name}" if name else key
                self.client("s3").put_object(Bucket=bucket, Key=target, Body=each.read_bytes())
        return Reply()

    standing = Path()
    """Where the script stands."""

    def _keys(self, bucket: str, start: str) -> list[str]:
        told = self.client("s3").list_objects_v2(Bucket=bucket, Prefix=start)
        return [each["Key"] for each in told.get("Contents", ())]


def _included(name: str, call: Call) -> bool:
    """By the CLI's rule: of all --exclude and --include, the last that fits counts. Ours exclude all first,
    include some, and then exclude main.yaml, if anything.
    """
    excluded, included = call.options.get("exclude", []), call.options.get("include", [])
    if name in excluded:
        return False
    return not excluded or any(fnmatch.fnmatch(name, each) for each in included)


def _value(shape: Any, words: list[str]) -> Any:
    kind = shape.type_name
    if kind == "boolean":
        return True
    if kind in ("integer", "long"):
        return int(words[0])
    if kind == "list":
        if shape.member.type_name == "structure":
            return [_structure(shape.member, each) for each in words]
        return words
    if kind == "structure":
        text = words[0]
        if text.startswith("file://"):
            return json.loads(Path(text.removeprefix("file://")).read_text(encoding="utf-8"))
        return _structure(shape, text)
    return base64.b64decode(words[0]) if kind == "blob" else words[0]


def _structure(shape: Any, text: str) -> dict[str, Any]:
    """The CLI's shorthand: Key=value,Key=value; a list takes the words up to the next key."""
    found: dict[str, Any] = {}
    name = ""
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if equals and key in shape.members:
            name = key
            kind = shape.members[name].type_name
            found[name] = [value] if kind == "list" else value == "true" if kind == "boolean" else value
        elif isinstance(found.get(name), list):
            found[name].append(piece)
        else:
            found[name] = f"{found[name]},{piece}"
    return found


def _shown(told: Any, options: dict[str, list[str]]) -> str:
    """As the CLI prints it."""
    if "query" in options:
        told = jmespath.search(options["query"][0], told)
    if options.get("output", ["json"])[0] == "json":
        return json.dumps(told, default=str, indent=4) + "\n"
    return _text(told)


def _text(told: Any) -> str:
    if told is None:
        return "None\n"
    if isinstance(told, list):
        if not told:
            return ""
        if all(not isinstance(each, list | dict) for each in told):
            return "\t".join("None" if each is None else str(each) for each in told) + "\n"
        return "".join(_text(each) for each in told)
    return f"{told}\n"
