"""Model files on a worker's disk: fetched once, checked once, in place where possible, kept by last use."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelRef
from atelier.storage.filesystem import FilesystemBlobStore
from tests.conftest import Eventually
from tests.contract.worker_doubles import SetClock, a_checkpoint
from workers.runtime import model_cache
from workers.runtime.model_cache import ModelCache


class DistantStore(FilesystemBlobStore):
    """A store without files on this machine, which counts what is read from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.hold: threading.Event | None = None

    def local_path(self, key: str) -> Path | None:
        return None

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        if self.hold is not None:
            assert self.hold.wait(60)
        return FilesystemBlobStore(self.root).open(key)


def stored(store: FilesystemBlobStore, content: bytes, **changes: Any) -> ModelRef:
    """Store `content` as a model's file."""
    digest = hashlib.sha256(content).hexdigest()
    FilesystemBlobStore(store.root).put(keys.model(digest), content)
    return a_checkpoint(blob_sha256=digest, size=len(content), **changes)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def distant(tmp_path: Path) -> DistantStore:
    return DistantStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path, distant: DistantStore, clock: SetClock) -> ModelCache:
    return ModelCache(distant, tmp_path / "cache", 100, clock=clock)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []
    digest: Callable[..., str] = model_cache._digest

    def counting(source: BinaryIO, **rest: Any) -> str:
        names.append(Path(source.name).name)
        return digest(source, **rest)

    monkeypatch.setattr(model_cache, "_digest", counting)
    return names


def test_a_model_is_fetched_once_and_found_again_by_the_next_process(
    cache: ModelCache, distant: DistantStore, tmp_path: Path
) -> None:
    model = stored(distant, b"weights")
    assert cache.path(model).read_bytes() == b"weights"
    assert cache.path(model) == ModelCache(distant, tmp_path / "cache", 100).path(model)
    assert distant.opened == [keys.model(model.blob_sha256)]


def test_threads_that_want_the_same_model_fetch_it_once(cache: ModelCache, distant: DistantStore) -> None:
    model = stored(distant, b"weights")
    distant.hold = threading.Event()
    with ThreadPoolExecutor(4) as threads:
        paths = [threads.submit(cache.path, model) for _ in range(4)]
        distant.hold.set()
        found = {path.result(60) for path in paths}
    assert len(found) == 1
    assert len(distant.opened) == 1


def test_a_file_that_can_stay_in_place_is_used_there_and_hashed_once(
    tmp_path: Path, hashed: list[str]
) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    model = stored(store, b"weights")
    for _ in range(2):
        cache = ModelCache(store, tmp_path / "cache", 0)
        assert cache.path(model) == cache.path(model) == store.local_path(keys.model(model.blob_sha256))
    assert len(hashed) == 1


def test_a_linked_file_that_was_changed_is_refused_by_name(tmp_path: Path, hashed: list[str]) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    original = tmp_path / "mine.safetensors"
    original.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    store.link(keys.model(digest), original)
    model = a_checkpoint(blob_sha256=digest, filename="mine.safetensors")
    cache = ModelCache(store, tmp_path / "cache", 0)
    assert cache.path(model) == original
    original.write_bytes(b"another")
    os.utime(original, (1, 1))
    with pytest.raises(ModelUnusable, match=r"mine\.safetensors"):
        cache.path(model)
    assert len(hashed) == 2


def test_a_damaged_or_missing_file_names_the_model_and_leaves_nothing(
    cache: ModelCache, distant: DistantStore, tmp_path: Path
) -> None:
    model = stored(distant, b"weights", filename="good.safetensors")
    damaged = model.model_copy(update={"filename": "bad.safetensors", "blob_sha256": "c" * 64})
    with pytest.raises(ModelUnusable, match=r"bad\.safetensors.*not in the store"):
        cache.path(damaged)
    FilesystemBlobStore(distant.root).put(keys.model("c" * 64), b"something else")
    with pytest.raises(ModelUnusable, match=r"bad\.safetensors.*not the one"):
        cache.path(damaged)
    assert list((tmp_path / "cache" / "files").iterdir()) == []


def test_a_file_damaged_on_our_disk_is_fetched_again(cache: ModelCache, distant: DistantStore) -> None:
    model = stored(distant, b"weights")
    path = cache.path(model)
    path.write_bytes(b"")
    assert cache.path(model).read_bytes() == b"weights"
    assert len(distant.opened) == 2


def test_the_least_recently_used_files_go_first_but_never_one_just_given_out(
    cache: ModelCache, distant: DistantStore, clock: SetClock, tmp_path: Path
) -> None:
    models = [stored(distant, b"%d" % number * 40) for number in range(4)]
    for model in (models[0], models[1], models[0]):
        cache.path(model)
        clock.advance(60)
    clock.advance(600)

    def kept() -> set[str]:
        return {file.name for file in (tmp_path / "cache" / "files").iterdir()}

    cache.path(models[2])
    assert kept() == {models[0].blob_sha256, models[2].blob_sha256}
    clock.advance(1)
    cache.path(models[3])
    assert kept() == {models[2].blob_sha256, models[3].blob_sha256}


def test_files_of_parts_in_work_stay_however_long_they_were_not_used(
    cache: ModelCache, distant: DistantStore, clock: SetClock, tmp_path: Path
) -> None:
    models = [stored(distant, b"%d" % number * 40) for number in range(4)]
    releases = [cache.hold([models[0]]), cache.hold([models[0]])]
    for model in models[:2]:
        cache.path(model)
        clock.advance(600)
    releases[0]()
    assert cache.path(models[2]).is_file()
    assert cache.place(models[0]).is_file()
    assert not cache.place(models[1]).is_file()
    releases[1]()
    clock.advance(600)
    cache.path(models[3])
    assert not cache.place(models[0]).is_file()


def test_what_is_still_arriving_counts(
    cache: ModelCache, distant: DistantStore, clock: SetClock, eventually: Eventually
) -> None:
    models = [stored(distant, b"%d" % number * 40) for number in range(3)]
    cache.path(models[0])
    clock.advance(600)
    distant.hold = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        arriving = [threads.submit(cache.path, models[1])]
        eventually(lambda: len(distant.opened) == 2)
        arriving.append(threads.submit(cache.path, models[2]))
        eventually(lambda: len(distant.opened) == 3)
        assert not cache.place(models[0]).is_file()
        distant.hold.set()
        assert all(each.result(60).is_file() for each in arriving)


def test_room_is_taken_from_the_moment_it_is_made(
    cache: ModelCache, distant: DistantStore, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, first, second = (stored(distant, b"%d" % number * 40) for number in range(3))
    cache.path(old)
    clock.advance(600)
    real = tempfile.mkstemp

    def late(**rest: Any) -> tuple[int, str]:
        monkeypatch.setattr(tempfile, "mkstemp", real)
        cache.path(second)  # another thread's, before the first one has a file
        return real(**rest)

    monkeypatch.setattr(tempfile, "mkstemp", late)
    cache.path(first)
    assert [cache.place(each).is_file() for each in (old, first, second)] == [False, True, True]


def test_a_file_that_goes_while_room_is_made_hinders_nobody(
    cache: ModelCache, distant: DistantStore, tmp_path: Path
) -> None:
    files = tmp_path / "cache" / "files"
    files.mkdir(parents=True)
    (files / ("0" * 64)).symlink_to(tmp_path / "gone")
    assert cache.path(stored(distant, b"weights")).read_bytes() == b"weights"


def test_threads_that_make_room_at_once_all_get_their_files_and_keep_to_the_capacity(
    distant: DistantStore, tmp_path: Path, clock: SetClock
) -> None:
    before = ModelCache(distant, tmp_path / "cache", 100, clock=clock)
    for number in range(50):
        before.path(stored(distant, b"%02d" % number))
    cache = ModelCache(distant, tmp_path / "cache", 100, clock=clock)
    wanted = [stored(distant, b"new %02d" % number) for number in range(15)]
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(cache.path, wanted))
    assert [path.read_bytes() for path in paths] == [b"new %02d" % number for number in range(15)]
    assert sum(file.stat().st_size for file in (tmp_path / "cache" / "files").iterdir()) <= 100


def test_a_configuration_is_read_and_checked(cache: ModelCache, distant: DistantStore) -> None:
    text = "model: {}\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    model = a_checkpoint(config_sha256=digest)
    with pytest.raises(ModelUnusable, match="configuration"):
        cache.config(model)
    near = FilesystemBlobStore(distant.root)
    near.put(keys.model(digest), b"damaged")
    with pytest.raises(ModelUnusable, match="damaged"):
        cache.config(model)
    near.put(keys.model(digest), text.encode())
    assert cache.config(model) == text
    assert cache.config(a_checkpoint()) is None


def test_what_came_with_the_image_is_used_as_it_is_and_nothing_is_asked_of_the_store(
    tmp_path: Path, distant: DistantStore, hashed: list[str]
) -> None:
    baked = tmp_path / "baked"
    baked.mkdir()
    text = hashlib.sha256(b"model: {}").hexdigest()
    model = a_checkpoint(blob_sha256="a" * 64, size=7, config_sha256=text)
    (baked / model.blob_sha256).write_bytes(b"weights")
    (baked / text).write_bytes(b"model: {}")
    cache = ModelCache(distant, tmp_path / "cache", 100, baked=baked)
    assert cache.path(model) == baked / model.blob_sha256
    assert cache.config(model) == "model: {}"
    assert hashed == distant.opened == []
    other = stored(distant, b"another")
    assert cache.path(other).read_bytes() == b"another"
    assert distant.opened == [keys.model(other.blob_sha256)]
