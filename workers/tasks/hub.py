"""The Hugging Face Hub by its plain HTTP API: what a repository holds, and which of it makes a model.

https://huggingface.co/docs/hub/api. A file in large storage (LFS) is named by its sha256, a small one by
git's hash of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atelier.contract.errors import InvalidRequest, ModelUnusable, PayloadTooLarge, WorkerUnavailable
from atelier.contract.models import ModelKind
from atelier.modelsource import HubSource
from workers.tasks.fetching import Fetched, Fetcher, Tell, too_large
from workers.tasks.foldernames import ENDINGS, INDEX, LARGEST_JSON, PARTS, SCHEDULER_CONFIG, STEMS
from workers.tasks.refusals import refusal

MODEL_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `size` in bytes, None where it is not told."""

    path: str
    size: int | None
    sha256: str
    """Of a file in large storage, else ""."""
    git_hash: str


class Repository:
    """One repository at one commit: a branch that moves meanwhile changes nothing."""

    def __init__(self, fetcher: Fetcher, hub: str, source: HubSource, with_token: bool) -> None:
        self._fetcher, self._hub = fetcher, hub.rstrip("/")
        self.name = source.repository
        revision = quote(source.revision or "main", safe="")
        answer, body = fetcher.read(f"{self._hub}/api/models/{self.name}/revision/{revision}?blobs=true")
        if answer.status != 200:
            raise refusal(answer.address, answer.status, answer.headers, with_token, self.name)
        try:
            told: Mapping[str, Any] = json.loads(body)
            self.commit = str(told["sha"])
            self.files = {each["rfilename"]: _file(each) for each in told["siblings"]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise WorkerUnavailable(
                f"{answer.address.site} did not answer as the Hub does when asked about {self.name}."
            ) from error

    def fetch(self, file: HubFile, path: Path, tell: Tell) -> Fetched:
        """One file, verified by the hash that the repository states. Raises what Fetcher.fetch raises."""
        url = f"{self._hub}/{self.name}/resolve/{quote(self.commit)}/{quote(file.path)}"
        fetched = self._fetcher.fetch(
            url, path, tell, sha256=file.sha256, size=file.size, repository=self.name
        )
        if not file.sha256 and file.git_hash and _git_hash(path) != file.git_hash:
            raise InvalidRequest(f"{file.path} of {self.name} arrived changed. Import it again.")
        return fetched

    def chosen(self, wanted: str, kind: ModelKind) -> HubFile | None:
        """The one file that is the model; None where the whole repository is one, in the diffusers library's
        folders. Raises InvalidRequest, naming the files to choose from.
        """
        if wanted:
            if wanted not in self.files:
                raise InvalidRequest(
                    f"The repository {self.name} has no file {wanted!r}. {self._offers()}",
                    detail={"files": self._models()[:50]},
                )
            return self.files[wanted]
        if INDEX in self.files and kind is ModelKind.CHECKPOINT:
            return None
        models = [path for path in self._models() if "/" not in path] or self._models()
        best = [path for path in models if path.endswith(".safetensors")] or models
        if len(best) == 1:
            return self.files[best[0]]
        raise InvalidRequest(
            f"The repository {self.name} is no single model. {self._offers()}",
            detail={"files": self._models()[:50]},
        )

    def folder_files(self, limit: int, by: str) -> list[HubFile]:
        """What of a diffusers folder is needed: its index and, of each part, the settings and the best
        weights. Raises ModelUnusable, PayloadTooLarge.
        """
        needed = [path for path in (INDEX, SCHEDULER_CONFIG) if path in self.files]
        for part in PARTS:
            inside = [path for path in self.files if path.startswith(f"{part}/")]
            if inside:
                needed += [f"{part}/config.json"] if f"{part}/config.json" in self.files else []
                needed += self._weights(part)
        found = [self.files[path] for path in needed]
        for each in found:
            if each.path.endswith(".json") and (each.size or 0) > LARGEST_JSON:
                raise PayloadTooLarge(f"{each.path} of {self.name} is too large for what it should be.")
        total = sum(each.size or 0 for each in found)
        if total > limit:
            raise too_large(total, limit, by)
        return found

    def _weights(self, part: str) -> Sequence[str]:
        names = [f"{part}/{stem}{ending}" for ending in ENDINGS for stem in STEMS]
        whole = next((path for path in names if path in self.files), None)
        if whole is not None:
            return [whole]
        index = next((f"{path}.index.json" for path in names if f"{path}.index.json" in self.files), None)
        if index is None:
            raise ModelUnusable(f"The repository {self.name} has no weights in {part}.")
        beginning = index.removesuffix(".index.json").rsplit(".", 1)[0].removesuffix(".fp16")
        ending = index.removesuffix(".index.json").rsplit(".", 1)[1]
        pieces = [path for path in self.files if path.startswith(f"{beginning}") and path.endswith(ending)]
        return [index, *(path for path in pieces if "-of-" in path)]

    def _models(self) -> list[str]:
        return sorted(path for path in self.files if path.lower().endswith(MODEL_FILES))

    def _offers(self) -> str:
        models = self._models()
        if not models:
            return "There is no model file in it."
        more = f" and {len(models) - 12} more" if len(models) > 12 else ""
        return f"Name one of its files: {', '.join(models[:12])}{more}."


def _file(told: Mapping[str, Any]) -> HubFile:
    large = told.get("lfs") or {}
    size = told.get("size")
    return HubFile(
        path=_inside(str(told["rfilename"])),
        size=size if type(size) is int and size >= 0 else None,
        sha256=str(large.get("sha256") or ""),
        git_hash=str(told.get("blobId") or ""),
    )


def _inside(path: str) -> str:
    """A path as a repository has them. Raises ValueError for one that leads out of it."""
    if any(word in ("", ".", "..") for word in path.split("/")) or "\\" in path or "\0" in path:
        raise ValueError("no path of a file")
    return path


def _git_hash(path: Path) -> str:
    """git's name for a file's bytes (git-hash-object)."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest()
