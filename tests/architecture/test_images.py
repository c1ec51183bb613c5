"""The rules that every image keeps: no root, no shell in between, nothing that floats or is not needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, imports_of
from tests.architecture.test_tree import KEYS
from tests.dockerfile import Dockerfile, filled, instructions, read

FOLDER = ROOT / "deployment" / "images"
FILES = {path.name.removesuffix(".Dockerfile"): path for path in sorted(FOLDER.glob("*.Dockerfile"))}
_WORKERS = ("workers/engine", "workers/preprocessing")
PACKAGES = {
    "webui": {"atelier", "extensions", "webui"},
    "portal": {"atelier", "extensions", "portal"},
    "inference": {"atelier", "extensions", *_WORKERS, "workers/inference", "workers/runtime"},
    "training": {"atelier", "extensions", *_WORKERS, "workers/runtime", "workers/training"},
    "tasks": {"atelier", *_WORKERS, "workers/tasks"},
}
"""The folders of the source that each image holds."""
OTHERS = {"portal": {"models"}}
LABELS = (
    "title",
    "description",
    "licenses",
    "version",
    "revision",
    "created",
    "source",
    "base.name",
    "base.digest",
)
SECRET = re.compile(r"(?i)(password|secret|token|credential|api_?key|access_?key)")
each_image = pytest.mark.parametrize("name", sorted(FILES))


@pytest.fixture
def file(name: str) -> Dockerfile:
    return read(FILES[name])


def copied(file: Dockerfile) -> list[tuple[str, str]]:
    """(source, target) of what the final stage takes from the repository."""
    found = [each.arguments for each in file.final.of("COPY") if "from" not in each.flags]
    return [(source, target) for *sources, target in found for source in sources]


def test_there_is_a_file_for_each_image() -> None:
    assert set(FILES) == set(PACKAGES)


@each_image
def test_the_base_is_named_by_a_digest_that_is_an_argument(file: Dockerfile) -> None:
    assert file.arguments["PYTHON_IMAGE"] == "python:3.11-slim-bookworm"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", file.arguments["PYTHON_DIGEST"])
    assert {stage.base for stage in file.stages} == {"${PYTHON_IMAGE}@${PYTHON_DIGEST}"}


def test_all_images_stand_on_the_same_base() -> None:
    assert len({tuple(read(path).arguments.items()) for path in FILES.values()}) == 1


@each_image
def test_it_runs_as_nobody_in_particular_unless_an_argument_says_otherwise(file: Dockerfile) -> None:
    user = file.final.last("USER")
    assert user is not None and user.text == "${RUN_AS}"
    assert "RUN_AS=10001:10001" in {each.text for each in file.final.of("ARG")}
    after = file.final.steps[file.final.steps.index(user) + 1 :]
    assert not {"RUN", "COPY"} & {each.word for each in after}


@each_image
def test_its_programs_are_started_without_a_shell(file: Dockerfile) -> None:
    entry, command, health = (file.final.last(word) for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    assert entry is not None and (entry.exec_form or [""])[0] == "python"
    assert command is None or command.exec_form
    assert health is not None
    if health.text != "NONE":
        [check] = instructions(health.text[health.text.index("CMD") :])
        assert check.exec_form and check.exec_form[:2] == ["python", "-c"]
        compile(check.exec_form[2], "healthcheck", "exec")


@each_image
def test_its_entry_is_a_module_that_it_holds(name: str, file: Dockerfile) -> None:
    entry = file.final.last("ENTRYPOINT")
    assert entry is not None and entry.exec_form is not None
    program = ROOT / entry.exec_form[2].replace(".", "/")
    found = program / "__main__.py" if program.is_dir() else program.with_suffix(".py")
    assert found.is_file()
    assert found.relative_to(ROOT).as_posix().startswith(tuple(PACKAGES[name]))


@each_image
def test_it_installs_wheels_by_their_hashes_alone(file: Dockerfile) -> None:
    installs = [each.text for stage in file.stages for each in stage.of("RUN") if "pip" in each.text]
    assert len(installs) == 1
    for flag in ("--require-hashes", "--no-deps", "--only-binary :all:", "--no-cache-dir"):
        assert flag in installs[0], flag
    assert not re.search(r"apt|curl|wget|git |upgrade", " ".join(installs))
    values = {"COMPUTE": "cuda"}
    locks = re.findall(r'-r "?(\S+?)"? ', filled(installs[0], values) + " ")
    assert len(locks) == 1 and locks[0].startswith("/build/lock")


@each_image
def test_it_holds_the_folders_it_needs_and_no_other(name: str, file: Dockerfile) -> None:
    taken = copied(file)
    assert {source for source, _ in taken} == PACKAGES[name] | OTHERS.get(name, set())
    assert all(target == f"/opt/atelier/{source}" for source, target in taken)


@each_image
def test_what_it_holds_imports_nothing_of_ours_that_it_does_not_hold(name: str) -> None:
    missing = []
    for folder in PACKAGES[name]:
        for path in (ROOT / folder).rglob("*.py"):
            if name != "inference" and path.name == "worker.py" and folder == "extensions":
                continue  # an extension's worker part is imported by workers alone
            for imported, line in imports_of(path):
                inside = imported.replace(".", "/") + "/"
                ours = inside.split("/")[0] in ("atelier", "portal", "webui", "workers", "extensions")
                if ours and not inside.startswith(tuple(f"{each}/" for each in PACKAGES[name])):
                    missing.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert not missing, "\n".join(missing)


@each_image
def test_everything_it_copies_exists_and_is_let_through(file: Dockerfile) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for stage in file.stages:
        for each in stage.of("COPY"):
            if "from" in each.flags:
                assert each.flags["from"] in {other.name for other in file.stages}
                continue
            for source in each.arguments[:-1]:
                assert "$" not in source, f"{source}: what goes in can be read off the file"
                assert (ROOT / source).exists(), source
                assert any(f"{source}/".startswith(f"{place}/") for place in let_through), source


@each_image
def test_it_has_nothing_from_an_address_and_no_secret(name: str, file: Dockerfile) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert not KEYS.search(text)
    for stage in file.stages:
        assert not stage.of("ADD") and not stage.of("ONBUILD") and not stage.of("SHELL")
        assert not [each.text for each in stage.of("COPY") if "://" in each.text]
        assert not [
            each.text for word in ("ARG", "ENV") for each in stage.of(word) if SECRET.search(each.text)
        ]


@each_image
def test_it_says_what_it_is_and_what_of(name: str, file: Dockerfile) -> None:
    labels = {key: value for each in file.final.of("LABEL") for key, _, value in _pairs(each.words)}
    assert labels["org.opencontainers.image.title"] == f"atelier-{name}"
    for label in LABELS:
        assert labels[f"org.opencontainers.image.{label}"], label
    takes_a_port = labels.get("com.amazonaws.sagemaker.capabilities.accept-bind-to-port") == "true"
    assert takes_a_port == (name in ("inference", "training"))


def _pairs(words: list[str]) -> list[tuple[str, str, str]]:
    return [word.partition("=") for word in words]


@each_image
def test_what_it_writes_is_named_and_documented(name: str, file: Dockerfile) -> None:
    volumes = [path for each in file.final.of("VOLUME") for path in each.exec_form or []]
    assert "/tmp" in volumes
    row = next(
        line
        for line in (ROOT / "docs" / "deployment-images.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{name}` |")
    )
    assert all(f"`{path}`" in row for path in volumes), row
    made = " ".join(each.text for each in file.final.of("RUN"))
    assert all(path in made for path in volumes if path != "/tmp")


@each_image
def test_every_argument_is_documented(file: Dockerfile) -> None:
    page = (ROOT / "docs" / "deployment-images.md").read_text(encoding="utf-8")
    arguments = {each.text.partition("=")[0] for stage in file.stages for each in stage.of("ARG")}
    assert [each for each in sorted(arguments) if f"| `{each}` |" not in page] == []


def test_a_gpu_image_takes_the_driver_from_its_host_and_tasks_take_none() -> None:
    for name in ("inference", "training"):
        file = read(FILES[name])
        assert "COMPUTE=cuda" in {each.text for each in file.stages[0].of("ARG")}
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in file.final.of("ENV")[0].words
    assert "COMPUTE=cpu" in {each.text for each in read(FILES["tasks"]).stages[0].of("ARG")}


def test_no_weights_are_kept_where_those_to_be_baked_lie() -> None:
    assert "/deployment/images/weights/*" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_reader_joins_lines_and_tells_forms_apart(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text('ARG A=1\nFROM x:$A AS one\n# said\nRUN a \\\n  && b\nCMD ["c", "d"]\nENTRYPOINT e f\n')
    file = read(path)
    assert (file.arguments, filled(file.final.base, file.arguments)) == ({"A": "1"}, "x:1")
    assert [(each.word, each.exec_form) for each in file.final.steps] == [
        ("RUN", None),
        ("CMD", ["c", "d"]),
        ("ENTRYPOINT", None),
    ]
    assert file.final.steps[0].text == "a && b"
