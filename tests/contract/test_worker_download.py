"""From a bucket into a worker's memory: in pieces, to where each byte belongs, checked, kept where there is
room.
"""

from __future__ import annotations

import hashlib
import os
import random
import uuid
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable, StorageFailed
from atelier.contract.models import ModelRef
from atelier.modelfile import reference
from atelier.storage.s3 import Bucket, S3BlobStore
from tests.contract.worker_doubles import a_checkpoint
from tests.moto_aws import Aws
from workers.engine import ModelFile
from workers.engine.loader import weightfile
from workers.engine.loader.checkpoint import read_checkpoint
from workers.runtime import download
from workers.runtime.download import fetch
from workers.runtime.model_cache import ModelCache


@pytest.fixture
def store(aws: Aws) -> S3BlobStore:
    return S3BlobStore(Bucket("studio", f"{uuid.uuid4().hex}/", endpoint_url=aws.url), aws.session)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of some tensors, as long as a few pieces."""
    torch.manual_seed(1)
    sizes = (1, 3, 70_000, 0, 12, 90_000, 17)
    path = tmp_path / "some.safetensors"
    save_file({f"tensor{size}": torch.randn(size) for size in sizes}, path)
    return path


@pytest.fixture
def model(store: S3BlobStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRef:
    """The file in the store, read from there in several pieces."""
    monkeypatch.setattr(download, "PIECE", 100_000)
    model = reference(file)
    store.put(keys.model(model.blob_sha256), file)
    return model


def cache(store: S3BlobStore, place: Path, capacity: int = 2**30) -> ModelCache:
    return ModelCache(store, place / "cache", capacity)


def into_memory(cache: ModelCache, model: ModelRef) -> dict[str, torch.Tensor]:
    source = cache.distant(model)
    assert source is not None
    return weightfile.read(source, lambda _: True)[0]


@pytest.mark.parametrize("seed", range(4))
def test_every_byte_comes_to_its_place_and_all_are_hashed_and_kept(
    store: S3BlobStore, tmp_path: Path, seed: int
) -> None:
    drawn = random.Random(seed)  # noqa: S311
    content = os.urandom(50_000)
    blob = store.put("models/m", content)
    cuts = sorted(drawn.sample(range(50_001), 12))
    wanted = [(start, end) for start, end in pairwise(cuts) if drawn.random() < 0.6]
    buffers = [bytearray(end - start) for start, end in wanted]
    parts = [(start, memoryview(buffer)) for (start, _), buffer in zip(wanted, buffers, strict=True)]
    parts.insert(1, (parts[0][0] + len(buffers[0]), memoryview(b"")))
    with (tmp_path / "copy").open("wb") as copy:
        found = fetch(store, blob, parts, copy=copy.fileno(), threads=3, piece=7_000)
    assert found == hashlib.sha256(content).hexdigest()
    assert [bytes(buffer) for buffer in buffers] == [content[start:end] for start, end in wanted]
    assert (tmp_path / "copy").read_bytes() == content


def test_a_checkpoint_goes_into_memory_and_onto_the_disk_at_once(
    store: S3BlobStore, tmp_path: Path, repository: Path
) -> None:
    path = repository / "models" / "atelier-demo.safetensors"
    demo = reference(path)
    store.put(keys.model(demo.blob_sha256), path)
    first = cache(store, tmp_path)
    source = first.distant(demo)
    read = read_checkpoint(ModelFile(first.place(demo), None, demo.filename, source), "demo")
    local = read_checkpoint(ModelFile(path), "demo")
    assert read.unet.tensors.keys() == local.unet.tensors.keys()
    for name, tensor in local.unet.tensors.items():
        assert torch.equal(tensor, read.unet.tensors[name]), name
    store.delete(keys.model(demo.blob_sha256))
    again = cache(store, tmp_path)
    assert again.distant(demo) is None
    assert again.path(demo) == first.place(demo)


def test_without_room_on_the_disk_nothing_is_kept_and_all_is_read(
    store: S3BlobStore, model: ModelRef, file: Path, tmp_path: Path
) -> None:
    tensors = into_memory(cache(store, tmp_path, capacity=model.size - 1), model)
    local, _ = weightfile.read(file, lambda _: True)
    assert tensors.keys() == local.keys()
    assert all(torch.equal(tensors[name], local[name]) for name in local)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("capacity", [0, 2**30])
def test_another_file_than_the_registered_one_is_refused_and_leaves_nothing(
    store: S3BlobStore, model: ModelRef, file: Path, tmp_path: Path, capacity: int
) -> None:
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    store.put(keys.model(model.blob_sha256), bytes(changed))
    with pytest.raises(ModelUnusable, match=rf"{file.name}.*not the one that was registered"):
        into_memory(cache(store, tmp_path, capacity), model)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [file]


def test_what_is_missing_replaced_or_no_model_is_said_by_name(
    store: S3BlobStore, model: ModelRef, tmp_path: Path
) -> None:
    missing = a_checkpoint(filename="gone.safetensors", blob_sha256="e" * 64)
    for look in (cache(store, tmp_path).distant, cache(store, tmp_path).path):
        with pytest.raises(ModelUnusable, match=r"gone\.safetensors.*not in the store"):
            look(missing)
    source = cache(store, tmp_path).distant(model)
    assert source is not None
    store.put(keys.model(model.blob_sha256), b"quite another")
    with pytest.raises(StorageFailed, match="replaced meanwhile"):
        weightfile.read(source, lambda _: True)
    with pytest.raises(ModelUnusable, match=r"some\.safetensors"):
        into_memory(cache(store, tmp_path), model)


def test_files_for_the_disk_come_in_pieces_too(store: S3BlobStore, model: ModelRef, tmp_path: Path) -> None:
    path = cache(store, tmp_path, capacity=0).path(model)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model.blob_sha256
