"""Importing what a studio owns: every format, every folder, once, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable, StorageFailed
from atelier.contract.models import ModelKind, ModelRef
from portal.db.work import Model
from portal.services import audit, model_cards
from portal.services.model_folders import files_at, kind_of
from portal.services.models import ModelFile
from tests.integration.test_cli import atelier, migrated
from tests.jobs_studio import Studio
from tests.narrow import twin
from workers.engine.loader.diffusers_layout import SCHEDULER, TEXT, UNET, VAE
from workers.tasks.folders import as_one_file

__all__ = ["migrated"]
CHECKPOINT = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 4, 1, 1),
    "first_stage_model.decoder.conv_in.weight": torch.ones(1),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.ones(1),
}
LORA = {"lora_unet_x.lora_up.weight": torch.ones(2, 1), "lora_unet_x.lora_down.weight": torch.ones(1, 2)}


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path / "data")
    with made.database.session() as session:
        session.query(Model).delete()
    yield made
    made.work.tasks.close()
    made.close()


def register(studio: Studio, path: Path, kind: ModelKind, *, link: bool = False) -> ModelRef:
    return studio.work.models.register(audit.SYSTEM, ModelFile(path, kind, link=link))


def pickled(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def kept(studio: Studio) -> list[str]:
    """Every blob but the catalogues."""
    return [each.key for each in studio.store.list("") if not each.key.startswith("catalogue/")]


def test_a_pickled_checkpoint_keeps_its_identity_and_its_conversion_is_stored(
    studio: Studio, tmp_path: Path
) -> None:
    path = pickled(tmp_path / "old.ckpt", {"state_dict": CHECKPOINT, "global_step": 7})
    path.with_suffix(".yaml").write_text("model: {}\n")
    model = register(studio, path, ModelKind.CHECKPOINT)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model.sha256, model.short_hash, model.filename) == (digest, digest[:10], "old.ckpt")
    assert (model.family, model.size) == ("sd1", path.stat().st_size)
    stored = studio.store.local_path(keys.model(model.blob_sha256))
    assert stored is not None
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == model.blob_sha256 != digest
    assert load_file(stored).keys() == CHECKPOINT.keys()
    assert register(studio, path, ModelKind.CHECKPOINT) == model
    studio.store.delete(keys.model(model.blob_sha256))
    assert register(studio, path, ModelKind.CHECKPOINT) == model
    assert sorted(kept(studio)) == sorted(
        [keys.model(model.blob_sha256), keys.model(str(model.config_sha256))]
    )


def test_two_imports_of_one_file_at_once_give_one_model(studio: Studio, tmp_path: Path) -> None:
    path = pickled(tmp_path / "old.pt", LORA)
    found: list[ModelRef] = []
    threads = [
        threading.Thread(target=lambda: found.append(register(studio, path, ModelKind.LORA)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(studio.work.models.listed()) == 1
    assert studio.store.stat(keys.model(found[0].blob_sha256)) is not None


def test_an_import_that_fails_half_way_leaves_nothing(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pickled(tmp_path / "old.pt", LORA)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_cards.Card, "fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(studio, path, ModelKind.LORA)
    assert kept(studio) == []
    assert studio.work.models.listed() == []
    assert register(studio, path, ModelKind.LORA).name == "old"


def test_a_file_of_another_kind_is_refused_and_its_likely_kind_named(studio: Studio, tmp_path: Path) -> None:
    cases = [
        ("lora.safetensors", LORA, ModelKind.CHECKPOINT, "is a LoRA or one"),
        ("full.safetensors", CHECKPOINT, ModelKind.LORA, "is a checkpoint"),
        (
            "words.safetensors",
            {"emb_params": torch.ones(2, 4)},
            ModelKind.HYPERNETWORK,
            "a textual inversion",
        ),
        ("hyper.safetensors", {"768.k.linear.0.weight": torch.ones(1)}, ModelKind.VAE, "a hypernetwork"),
        (
            "control.safetensors",
            {"control_model.zero_convs.0.0.weight": torch.ones(1)},
            ModelKind.LORA,
            "a Contr",
        ),
        ("vae.safetensors", {"decoder.conv_in.weight": torch.ones(1)}, ModelKind.EMBEDDING, "a VAE"),
    ]
    for name, tensors, kind, said in cases:
        save_file(tensors, tmp_path / name)
        with pytest.raises(ModelUnusable, match=said) as caught:
            register(studio, tmp_path / name, kind)
        assert name in caught.value.message
    with pytest.raises(ModelUnusable, match=r"x\.ckpt is not a checkpoint: by its tensors it is a LoRA"):
        register(studio, pickled(tmp_path / "x.ckpt", LORA), ModelKind.CHECKPOINT)
    assert kept(studio) == []


def test_a_linked_pickle_is_stored_as_its_conversion_and_known_by_its_place(
    studio: Studio, tmp_path: Path
) -> None:
    path = pickled(tmp_path / "Lora" / "old.pt", LORA)
    model = register(studio, path, ModelKind.LORA, link=True)
    assert studio.store.local_path(keys.model(model.blob_sha256)) != path
    studio.work.folders.remember(audit.SYSTEM, tmp_path / "Lora", None)
    assert studio.work.folders.refresh(audit.SYSTEM).added == []


def diffusers_folder(place: Path, *, pickled_vae: bool = False) -> Path:
    """A narrow SD1 as the library saves it."""
    made = twin("sd1")
    (place / SCHEDULER).mkdir(parents=True)
    (place / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (place / SCHEDULER / "scheduler_config.json").write_text("{}")
    for part, tensors in made.parts().items():
        (place / part).mkdir()
        stem = "model" if part == TEXT else "diffusion_pytorch_model"
        held = {key: tensor.clone() for key, tensor in tensors.items()}
        if part == VAE and pickled_vae:
            torch.save(held, place / part / f"{stem}.bin")
        else:
            save_file(held, place / part / f"{stem}.safetensors")
        (place / part / "config.json").write_text(json.dumps(dict(made.configs.get(part, {})), default=str))
    return place


def test_a_diffusers_folder_is_one_checkpoint(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "data")
    folder = diffusers_folder(tmp_path / "models" / "my.model", pickled_vae=True)
    assert files_at(tmp_path / "models") == [folder]
    assert files_at(folder) == [folder]
    model = register(studio, folder, ModelKind.CHECKPOINT)
    assert (model.name, model.filename, model.family) == ("my.model", "my.model.safetensors", "sd1")
    assert model.sha256 == model.blob_sha256
    stored = studio.store.local_path(keys.model(model.blob_sha256))
    assert stored is not None
    wanted = twin("sd1").save(tmp_path / "wanted.safetensors")
    theirs, ours = load_file(wanted), load_file(stored)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    studio.work.tasks.close()
    studio.close()


def test_a_diffusers_folder_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / UNET).mkdir(parents=True)
    with pytest.raises(ModelUnusable, match="The folder mine is no model folder"):
        as_one_file(folder, tmp_path / "out", "mine", tmp_path)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(ModelUnusable, match="The folder mine has no weights in unet"):
        as_one_file(folder, tmp_path / "out", "mine", tmp_path)
    index = folder / UNET / "model.safetensors.index.json"
    for named, said in (("../x.safetensors", "names no files"), ("x.safetensors", "half-copied")):
        index.write_text(json.dumps({"weight_map": {"w": named}}))
        with pytest.raises(ModelUnusable, match=said):
            as_one_file(folder, tmp_path / "out", "mine", tmp_path)


def test_the_folders_of_the_peer_say_what_their_files_are(tmp_path: Path) -> None:
    for name, kind in (
        ("models/Stable-diffusion/a.ckpt", ModelKind.CHECKPOINT),
        ("models/Stable-diffusion/a.vae.pt", ModelKind.VAE),
        ("models/VAE/b.ckpt", ModelKind.VAE),
        ("models/Lora/people/c.pt", ModelKind.LORA),
        ("models/LyCORIS/d.safetensors", ModelKind.LORA),
        ("models/hypernetworks/e.pt", ModelKind.HYPERNETWORK),
        ("models/ControlNet/f.pth", ModelKind.CONTROLNET),
        ("embeddings/g.bin", ModelKind.EMBEDDING),
        ("embeddings/h.png", ModelKind.EMBEDDING),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert kind_of(path) is kind
    (tmp_path / "embeddings" / "g.preview.png").touch()
    (tmp_path / "models" / "Lora" / "c.png").touch()
    (tmp_path / "embeddings" / "g.bin.optim").touch()
    assert len(files_at(tmp_path)) == 9


def test_files_of_one_stem_are_two_models(studio: Studio, tmp_path: Path) -> None:
    save_file(CHECKPOINT, tmp_path / "dream.safetensors")
    pickled(tmp_path / "dream.ckpt", CHECKPOINT)
    names = [register(studio, path, ModelKind.CHECKPOINT).name for path in files_at(tmp_path)]
    assert names == ["dream", "dream.safetensors"]


def test_a_whole_folder_comes_in_and_what_is_bad_in_it_is_told_one_by_one(
    migrated: Path, golden: Path, tmp_path: Path
) -> None:
    place = tmp_path / "peer"
    for name, target in (("tiny-ti.pt", "embeddings"), ("tiny-hn.pt", "models/hypernetworks")):
        (place / target).mkdir(parents=True)
        (place / target / name).write_bytes((golden / "models" / name).read_bytes())
    pickled(place / "models" / "Lora" / "cat.pt", LORA)
    pickled(place / "models" / "Lora" / "wrong.pt", CHECKPOINT)
    (place / "models" / "Lora" / "evil.pt").write_bytes(b"\x80\x02cos\nsystem\n.")
    save_file({"w": torch.ones(1)}, place / "cut.safetensors")
    (place / "cut.safetensors").write_bytes((place / "cut.safetensors").read_bytes()[:-2])
    done = atelier(migrated, "model", "import", str(place), "--link")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr
    assert "wrong.pt is not a LoRA or one of its relatives: by its tensors it is a checkpoint" in said
    assert "evil.pt names 'os.system'" in said
    assert "cut.safetensors" in said
    assert len(said.splitlines()) == 3
    listed = atelier(migrated, "model", "list").stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["embedding", "hypernetwork", "lora"]
    assert done.stdout.count("not linked") == 3
    assert not any((migrated / "tasks").iterdir())


def test_a_store_that_fails_is_told_and_nothing_is_entered(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(LORA, tmp_path / "cat.safetensors")

    def full(*_: object, **__: object) -> None:
        raise StorageFailed("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(type(studio.store), "put", full)
        with pytest.raises(StorageFailed):
            register(studio, tmp_path / "cat.safetensors", ModelKind.LORA)
    assert studio.work.models.listed() == []
