"""Images without an engine: a Dockerfile's steps carried out in an empty root, its entry point started there.

A root is a folder with mounts of its own (unshare(1), chroot(1)). In place of the base image it has this
machine's /usr and the interpreter that runs the tests, both read-only. At work everything is read-only but
the volumes that the Dockerfile names, and the process is the user it names.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atelier.processes import Child, spawn
from tests.dockerfile import Dockerfile, Instruction, Stage, filled, read

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "deployment" / "images"
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32")
_SETTINGS = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "login.defs",
    "nsswitch.conf",
    "alternatives",
    "ssl",
)
_UNSEEN = shutil.ignore_patterns("__pycache__", "*.pyc", ".git*", ".env*")
_WHEELS = "/wheels"
_CHROOT = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin")


def possible() -> bool:
    """Whether this machine lets a process have mounts of its own, and is what images are built for."""
    if os.geteuid() != 0 or sys.version_info[:2] != (3, 11) or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


@dataclass
class Image:
    """What a Dockerfile became."""

    root: Path
    env: Mapping[str, str]
    user: str
    workdir: str
    volumes: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    healthcheck: tuple[str, ...]

    def argv(
        self, *arguments: str, shared: Mapping[str, Path] | None = None, program: tuple[str, ...] = ()
    ) -> list[str]:
        """What starts it as an engine would: the entry point with `arguments`, else with its CMD. `shared`
        are folders of this machine by where the container has them; `program` stands in place of the entry
        point.
        """
        lines = [f"mkdir -p {shlex.quote(str(self.root) + where)}" for where in shared or {}]
        lines += [*_mounts(self.root, writable=False), *(_shared(self.root, shared or {}))]
        for path in self.volumes:
            if path not in (shared or {}):
                lines.append(f"mount -t tmpfs -o mode=1777 tmpfs {shlex.quote(str(self.root) + path)}")
        words = [*(program or self.entrypoint), *(arguments or (() if program else self.command))]
        inside = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(words)}"
        within = f"--userspec={self.user} {shlex.quote(str(self.root))}"
        lines.append(f"exec {_CHROOT} {within} /bin/sh -c {shlex.quote(inside)}")
        return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", "\n".join(lines)]

    def start(
        self,
        *arguments: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        shared: Mapping[str, Path] | None = None,
    ) -> Child:
        """Start the entry point with the image's variables and `env`."""
        return spawn(self.argv(*arguments, shared=shared), {**self.env, **(env or {})}, log=log)

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        shared: Mapping[str, Path] | None = None,
        entry: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, or (`entry`) the entry point with `words`, and wait for it."""
        argv = self.argv(*words, shared=shared) if entry else self.argv(shared=shared, program=words)
        return subprocess.run(
            argv, env={**self.env, **(env or {})}, capture_output=True, text=True, check=False, timeout=300
        )

    def content(self, *folders: str) -> int:
        """Bytes of the files below `folders`, by default of everything that was put in."""
        places = [self.root / each.lstrip("/") for each in folders or ("/opt",)]
        files = {path.stat().st_ino: path.stat().st_size for place in places for path in place.rglob("*")
                 if path.is_file() and not path.is_symlink()}  # fmt: skip
        return sum(files.values())


@dataclass
class Builder:
    """Builds images below `place`. `wheels` is where pip finds all it may install; `replaced` are folders
    that stand in place of the repository's, by their path in it. Equal steps are carried out once.
    """

    place: Path
    wheels: Path
    replaced: Mapping[str, Path] = field(default_factory=dict)
    _layers: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _count: int = 0

    def build(self, name: str, **arguments: str) -> Image:
        """The image of `deployment/images/{name}.Dockerfile`."""
        file = read(IMAGES / f"{name}.Dockerfile")
        given = file.arguments | arguments
        made: dict[str, Path] = {}
        values: dict[str, str] = {}
        for stage in file.stages:
            made[stage.name], values = self._stage(file, stage, given, made)
        return _image(made[file.final.name], file.final, values)

    def _stage(
        self, file: Dockerfile, stage: Stage, given: Mapping[str, str], made: Mapping[str, Path]
    ) -> tuple[Path, dict[str, str]]:
        root, values, done = self._empty(), dict[str, str](), (filled(stage.base, given),)
        for step in stage.steps:
            if step.word in ("ARG", "ENV"):
                values |= _set(step, values, given)
            elif step.word == "COPY":
                done += (filled(step.text, values),)
                self._copy(step, root, values, made)
            elif step.word == "RUN":
                done += (step.text, *(f"{key}={value}" for key, value in sorted(values.items())))
                root = self._run(step, root, values, done)
        return root, values

    def _empty(self) -> Path:
        self._count += 1
        root = self.place / f"root-{self._count}"
        for folder in ("etc", "proc", "dev", "tmp", "opt", "var", _WHEELS.strip("/")):
            (root / folder).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc" / "group").write_text("root:x:0:\n")
        for name in _SETTINGS:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(
                    source, root / "etc" / name, symlinks=True, ignore=shutil.ignore_patterns("private")
                )
            elif source.exists():
                shutil.copy(source, root / "etc" / name)
        return root

    def _copy(
        self, step: Instruction, root: Path, values: Mapping[str, str], made: Mapping[str, Path]
    ) -> None:
        *sources, target = (filled(each, values) for each in step.arguments)
        for source in sources:
            at = root / target.lstrip("/")
            at.parent.mkdir(parents=True, exist_ok=True)
            if "from" in step.flags:
                subprocess.run(["cp", "-al", made[step.flags["from"]] / source.lstrip("/"), at], check=True)
            elif (path := self.replaced.get(source, ROOT / source)).is_dir():
                shutil.copytree(path, at, ignore=_UNSEEN, dirs_exist_ok=True)
            else:
                shutil.copy(path, at)

    def _run(self, step: Instruction, root: Path, values: Mapping[str, str], done: tuple[str, ...]) -> Path:
        if done in self._layers:
            shutil.rmtree(root)
            subprocess.run(["cp", "-al", self._layers[done], root], check=True)
            return root
        lines = [*_mounts(root, writable=True), *_shared(root, {_WHEELS: self.wheels})]
        lines.append(f"exec {_CHROOT} {shlex.quote(str(root))} /bin/sh -ec {shlex.quote(step.text)}")
        env = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **values}
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": _WHEELS}
        finished = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", "\n".join(lines)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, f"{step.text}\n{finished.stdout[-2000:]}\n{finished.stderr[-2000:]}"
        kept = self.place / f"layer-{len(self._layers)}"
        subprocess.run(["cp", "-al", root, kept], check=True)
        self._layers[done] = kept
        return root


def download(lock: Path, wheels: Path) -> None:
    """Fetch exactly the files that `lock` names, each with its hash, as this machine's pip finds them."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), "-r", str(lock)]
    if index := os.environ.get("TORCH_INDEX"):
        command += ["--extra-index-url", index]
    subprocess.run(command, check=True, timeout=900)


def _set(step: Instruction, values: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What an ARG or ENV sets. An ARG without a value that nobody gave sets nothing."""
    found = {}
    for word in step.words if step.word == "ENV" else [step.text]:
        name, equals, value = word.partition("=")
        if step.word == "ARG" and name in given:
            found[name] = given[name]
        elif equals:
            found[name] = filled(value.strip('"'), {**values, **found})
    return found


def _image(root: Path, stage: Stage, values: Mapping[str, str]) -> Image:
    arguments = {each.text.partition("=")[0] for each in stage.of("ARG")}

    def words(name: str) -> tuple[str, ...]:
        step = stage.last(name)
        return tuple((step.exec_form if step else None) or ())

    health, user, workdir = stage.last("HEALTHCHECK"), stage.last("USER"), stage.last("WORKDIR")
    check = Instruction("CMD", health.text.partition("CMD ")[2]) if health else None
    volumes = tuple(path for each in stage.of("VOLUME") for path in each.exec_form or ())
    return Image(
        root=root,
        env={name: value for name, value in values.items() if name not in arguments},
        user=filled(user.text if user else "0:0", values),
        workdir=workdir.text if workdir else "/",
        volumes=volumes,
        entrypoint=words("ENTRYPOINT"),
        command=words("CMD"),
        healthcheck=tuple((check.exec_form if check else None) or ()),
    )


def _mounts(root: Path, *, writable: bool) -> list[str]:
    """Commands that put what a base image has below `root`, and make the rest read-only where asked to."""
    prefix = Path(sys.base_prefix)
    at = shlex.quote(str(root))
    lines = []
    for name in _SYSTEM:
        path = Path("/") / name
        if path.is_symlink():
            lines.append(f"[ -e {at}/{name} ] || ln -s {path.readlink()} {at}/{name}")
        elif path.is_dir():
            lines += [f"mkdir -p {at}/{name}", f"mount --bind /{name} {at}/{name}"]
            lines.append(f"mount -o remount,bind,ro {at}/{name}")
    if prefix == Path("/usr"):
        lines += [f"mount -t tmpfs tmpfs {at}/usr/local", f"mkdir {at}/usr/local/bin"]
        lines.append(f"ln -s /usr/bin/python3 {at}/usr/local/bin/python")
    else:  # where its base image has it, and where its own libraries look for each other
        lines.append(f"mkdir -p {at}{prefix}")
        for place in {"/usr/local", str(prefix)}:
            lines += [f"mount --bind {prefix} {at}{place}", f"mount -o remount,bind,ro {at}{place}"]
    if not writable:
        # Only now: what is mounted on may have had to be made.
        lines = [f"mount --bind {at} {at}", *lines, f"mount -o remount,bind,ro {at}"]
    return [*lines, f"mount --rbind /proc {at}/proc", f"mount --rbind /dev {at}/dev"]


def _shared(root: Path, shared: Mapping[str, Path]) -> list[str]:
    return [
        f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(root) + where)}"
        for where, path in shared.items()
    ]
