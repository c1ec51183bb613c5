"""From a checkpoint to an archive, and from the unpacked archive to pictures as a container makes them."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from portal.cli import main
from tests.integration.worker_process import tiny_checkpoint
from tests.lora_files import attentions, lora_file

CONTAINER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from importlib import util

spec = util.spec_from_file_location("inference", sys.argv[1] + "/code/inference.py")
inference = util.module_from_spec(spec)
spec.loader.exec_module(inference)
model = inference.model_fn(sys.argv[1])
small = {"width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}
def answer(body):
    data = inference.input_fn(json.dumps(body), "application/json")
    return json.loads(inference.output_fn(inference.predict_fn(data, model), "application/json"))
bodies = [{"prompt": ["a dog", "a cat"], **small}, {"inputs": "a dog", "parameters": small}]
with ThreadPoolExecutor(2) as threads:
    answers = list(threads.map(answer, bodies))
answers.append(answer(bodies[1]))  # alone: what shares a batch moves a pixel by one
try:
    answer({"prompt": 3})
except Exception as error:
    answers.append(str(error))
from workers.inference import hf_entry
print(json.dumps([hf_entry.__file__, *answers]))
model.engine.close(5)
"""


def test_an_archive_is_the_same_each_time_and_is_not_replaced_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    checkpoint.write_bytes(b"weights")
    pack = ["model", "pack", str(checkpoint), "--output"]
    for place in ("one", "two"):
        assert main([*pack, str(tmp_path / place)]) == 0
    one, two = (tmp_path / place / "tiny.tar.gz" for place in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert main([*pack, str(tmp_path / "one")]) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*pack, str(tmp_path / "one"), "--force"]) == 0
    assert main([*pack, (tmp_path / "store").as_uri()]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("/stable-diffusion/tiny.tar.gz")
    with tarfile.open(one) as archive:
        names = archive.getnames()
        assert archive.extractfile("tiny.safetensors").read() == b"weights"  # type: ignore[union-attr]
        needed = archive.extractfile("code/requirements.txt").read().decode()  # type: ignore[union-attr]
    assert names == sorted(names)
    assert "safetensors" in needed
    assert "sqlalchemy" not in needed


def unpacked(place: Path, name: str, *pack: str) -> Path:
    """A folder with the content of the archive that `atelier model pack` writes."""
    assert main(["model", "pack", *pack, "--output", str(place / "packed"), "--force"]) == 0
    with tarfile.open(place / "packed" / f"{name}.tar.gz") as archive:
        archive.extractall(place / f"unpacked-{name}", filter="data")
    return place / f"unpacked-{name}"


@pytest.mark.long
def test_the_vae_of_an_archive_decodes_its_pictures(tmp_path: Path) -> None:
    one, two = (tiny_checkpoint(tmp_path / f"{name}.safetensors", name) for name in (1, 2))
    vae = "first_stage_model."
    weights, others = load_file(one), load_file(two)
    theirs = {key: tensor for key, tensor in others.items() if key.startswith(vae)}
    save_file(
        {key.removeprefix(vae): tensor for key, tensor in theirs.items()}, tmp_path / "soft.safetensors"
    )
    save_file(weights | theirs, tmp_path / "baked.safetensors")
    places = [
        unpacked(tmp_path, "1", str(one), "--vae", str(tmp_path / "soft.safetensors")),
        unpacked(tmp_path, "baked", str(tmp_path / "baked.safetensors")),
        unpacked(tmp_path, "2", str(two)),
    ]
    assert (places[0] / "VAE" / "soft.safetensors").is_file()
    answers = []
    for place in places:
        done = subprocess.run(
            [sys.executable, "-c", CONTAINER, str(place)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        [picture] = json.loads(done.stdout)[3]["generated_images"]
        answers.append(Image.open(io.BytesIO(base64.b64decode(picture))))
    with_vae, baked, other = answers
    assert with_vae.tobytes() == baked.tobytes() != other.tobytes()
    told = [each.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "replace") for each in answers]
    assert ["VAE: soft.safetensors" in text for text in told] == [True, False, False]


def test_an_archive_takes_the_vae_that_the_studio_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_DATA_DIR", str(tmp_path / "data"))
    one = tiny_checkpoint(tmp_path / "one.safetensors", 1)
    vae = {key: tensor for key, tensor in load_file(one).items() if key.startswith("first_stage_model.")}
    for name in ("soft", "one.vae"):
        save_file(
            {key.removeprefix("first_stage_model."): tensor * len(name) for key, tensor in vae.items()},
            tmp_path / f"{name}.safetensors",
        )

    def packed(*pack: str) -> set[str]:
        return {each.name for each in (unpacked(tmp_path, "one", *pack) / "VAE").glob("*")}

    assert packed(str(one)) == {"one.vae.safetensors"}
    shutil.rmtree(tmp_path / "unpacked-one")
    (tmp_path / "one.json").write_text(json.dumps({"vae": "soft.safetensors"}))
    assert main(["migrate"]) == 0
    for name, kind in (("one", "checkpoint"), ("soft", "vae")):
        assert main(["model", "import", str(tmp_path / f"{name}.safetensors"), "--kind", kind]) == 0
    assert packed("one", "--vae", "None") == set()
    assert packed("one") == {"soft.safetensors"}
    lora = lora_file(tmp_path / "lora.safetensors", attentions(one), 1)
    assert main(["model", "pack", "one", "--vae", str(lora), "--output", str(tmp_path)]) == 1
    assert "lora.safetensors" in capsys.readouterr().err


@pytest.mark.long
def test_an_unpacked_archive_answers_as_a_container_calls_it(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "tiny.safetensors", 1)
    assert main(["model", "pack", str(tmp_path / "tiny.safetensors"), "--output", str(tmp_path)]) == 0
    model_dir = tmp_path / "model"
    with tarfile.open(tmp_path / "tiny.tar.gz") as archive:
        archive.extractall(model_dir, filter="data")
    done = subprocess.run(
        [sys.executable, "-c", CONTAINER, str(model_dir)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entry, two, one, alone, refused = json.loads(done.stdout)
    assert Path(entry).is_relative_to(model_dir / "code")
    assert [len(each["generated_images"]) for each in (two, one, alone)] == [2, 1, 1]
    for text in two["generated_images"]:
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert (image.format, image.size) == ("JPEG", (64, 64))
    assert "it must be text or a list of texts" in refused
