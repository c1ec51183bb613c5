"""The images, built from their Dockerfiles into empty roots and started as an engine would start them: as
their user, with a read-only root. See tests/image_root.py.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Picture

from atelier import modelfile
from atelier.contract import keys
from atelier.contract.models import Catalogue, ModelKind
from atelier.processes import Child
from atelier.storage.filesystem import FilesystemBlobStore
from deployment.images import lock
from tests.image_root import IMAGES, Builder, Image, download, possible
from tests.pickling import program, tensor, text, zipped
from tests.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not possible(), reason="needs root, unshare(1) and Python 3.11"),
]
ROOT = IMAGES.parents[1]
PASSWORD = "a password of the tests"
ORIGINS = (
    "import importlib, json, sys\n"
    "for name in sys.argv[1:]: importlib.import_module(name)\n"
    "files = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]\n"
    "print(json.dumps([file for file in files if file.startswith('/')]))"  # torch has some that are no paths
)
OWN = ("/opt/venv/", "/opt/atelier/")
STANDARD = "/usr/local/lib/python3.11/"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo checkpoint and its configuration."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("atelier-demo.safetensors", "atelier-demo.yaml"):
        shutil.copy(ROOT / "models" / name, folder)
    return folder


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Builder]:
    place = tmp_path_factory.mktemp("images")
    wheels = place / "wheels"
    wheels.mkdir()
    for name in ("portal", "webui", "worker-cpu"):
        download(lock.LOCKS / f"{name}.txt", wheels)
    yield Builder(place, wheels, {"deployment/images/weights": weights})
    subprocess.run(["rm", "-rf", place], check=True)  # hundreds of thousands of files


@pytest.fixture(scope="module")
def image(builder: Builder) -> Callable[..., Image]:
    """Each image, built once with the arguments of its first use."""
    built: dict[str, Image] = {}

    def given(name: str) -> Image:
        baked = {"BAKE_WEIGHTS": "yes"} if name == "inference" else {}
        if name not in built:
            built[name] = builder.build(name, COMPUTE="cpu", **baked)
        return built[name]

    return given


@pytest.fixture
def store(tmp_path: Path) -> FilesystemBlobStore:
    """A store that the images' user may write to."""
    (tmp_path / "store").mkdir()
    return FilesystemBlobStore(given_away(tmp_path / "store"))


def given_away(folder: Path) -> Path:
    """The folder with all that is in it, now the images' user's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 10001, 10001)
    return folder


def answers(child: Child, log: Path, url: str) -> httpx.Response:
    """The first answer of 200 from `url`."""

    def asked() -> httpx.Response | None:
        assert child.poll() is None, log.read_text()[-3000:]
        response = httpx.get(url, trust_env=False)
        return response if response.status_code == 200 else None

    found = eventually(asked, within=180.0, about=f"{url} never answered; see {log}")
    assert found is not None
    return found


def goes_when_asked(child: Child, log: Path, *, ends: str = "") -> None:
    """The signal reaches the program itself, which ends with 0. `ends`: its last words, of a server that
    passes the signal on once it is done.
    """
    child.terminate()
    status = eventually(lambda: [child.poll()] if child.poll() is not None else None, within=60.0)
    child.release()
    assert status == [0] or (ends and ends in log.read_text()), log.read_text()[-3000:]


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("webui", ["webui.app", "webui.studio", "webui.mount"]),
        ("portal", ["portal.app", "portal.cli", "psycopg", "boto3"]),
        ("inference", ["workers.inference.server", "extensions.lora.worker", "boto3"]),
        ("training", ["workers.training.program"]),
        ("tasks", ["workers.tasks.program", "workers.tasks.folders", "workers.tasks.confined"]),
    ],
)
def test_an_image_needs_nothing_but_what_it_holds(
    image: Callable[..., Image], name: str, modules: list[str]
) -> None:
    said = image(name).run("python", "-c", ORIGINS, *modules)
    assert said.returncode == 0, said.stderr
    files = json.loads(said.stdout.splitlines()[-1])
    assert [
        file
        for file in files
        if not file.startswith((*OWN, STANDARD)) or file.startswith(f"{STANDARD}site-packages")
    ] == []
    held = {file.split("/")[3] for file in files if file.startswith("/opt/atelier/")}
    assert held <= {"atelier", "extensions", "models", "portal", "webui", "workers"}


@pytest.mark.parametrize("name", ["webui", "portal", "inference", "training", "tasks"])
def test_an_image_is_nobodys_and_nothing_in_it_can_be_written(image: Callable[..., Image], name: str) -> None:
    built = image(name)
    said = built.run(
        "sh", "-c", "id -u; for each in / /opt /opt/venv /opt/atelier /etc; do touch $each/x; done"
    )
    assert said.stdout.split() == ["10001"]
    assert said.stderr.count("Read-only file system") == 5
    for path in built.volumes:
        assert built.run("touch", f"{path}/x").returncode == 0, path
    assert built.run("python", "-m", "pip", "--version").returncode != 0


def test_the_web_ui_has_no_torch_no_database_and_no_cloud(image: Callable[..., Image]) -> None:
    names = ("torch", "diffusers", "transformers", "safetensors", "sqlalchemy", "boto3", "jose", "portal")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert image("webui").run("python", "-c", code).stdout.strip() == "[]"
    assert not list(image("webui").root.glob("opt/venv/**/*libtorch*"))


def test_portal_and_web_ui_serve_the_studio_together(
    image: Callable[..., Image], tmp_path: Path, free_ports: Callable[[], int]
) -> None:
    portal, webui = image("portal"), image("webui")
    (tmp_path / "data").mkdir()
    shared = {"/var/lib/atelier": given_away(tmp_path / "data")}
    ports = free_ports(), free_ports()
    env = {"ATELIER_PORTAL_PORT": str(ports[0]), "ATELIER_ROLES": '["api"]'}
    first = portal.run("prepare", entry=True, shared=shared, env=env | {"ATELIER_ADMIN_PASSWORD": PASSWORD})
    assert first.returncode == 0, first.stderr
    assert "Checkpoint: atelier-demo.safetensors" in first.stdout and PASSWORD not in first.stdout
    logs = tmp_path / "portal.log", tmp_path / "webui.log"
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    serving = portal.start(log=logs[0], env=env, shared=shared)
    showing = webui.start(log=logs[1], env={"ATELIER_PORT": str(ports[1]), "ATELIER_PORTAL_URL": urls[0]})
    try:
        answers(serving, logs[0], f"{urls[0]}/healthz")
        answers(showing, logs[1], f"{urls[1]}/ui/readyz")
        assert answers(showing, logs[1], f"{urls[1]}/healthz").json() == {"status": "ok"}
        login = {"username": "admin", "password": PASSWORD}
        token = httpx.post(f"{urls[1]}/api/v1/auth/token", json=login, trust_env=False).json()["access_token"]
        page = httpx.get(f"{urls[1]}/", cookies={"atelier": token}, trust_env=False)
        assert page.status_code == 200 and "/ui/studio.js" in page.text
        for built, changes in ((portal, env), (webui, {"ATELIER_PORT": str(ports[1])})):
            assert built.run(*built.healthcheck, env=changes).returncode == 0
        goes_when_asked(showing, logs[1])
        goes_when_asked(serving, logs[0], ends="Application shutdown complete.")
        assert webui.run(*webui.healthcheck, env={"ATELIER_PORT": str(ports[1])}).returncode != 0
    finally:
        showing.stop()
        serving.stop()


def test_inference_serves_pictures_of_the_weights_that_were_baked_in(
    image: Callable[..., Image], store: FilesystemBlobStore, weights: Path, tmp_path: Path, free_port: int
) -> None:
    built, log = image("inference"), tmp_path / "log"
    checkpoint, config = weights / "atelier-demo.safetensors", (weights / "atelier-demo.yaml").read_bytes()
    model = modelfile.reference(checkpoint, ModelKind.CHECKPOINT).model_copy(
        update={"family": "sd1", "config_sha256": hashlib.sha256(config).hexdigest()}
    )
    catalogue = Catalogue(models=(model,), default_checkpoint=model.title)
    store.put(keys.catalogue("local"), catalogue.model_dump_json().encode())
    given_away(store.root)
    env = {
        "SAGEMAKER_BIND_TO_PORT": str(free_port),
        "ATELIER_STORE": "file:///store",
        "ATELIER_ENDPOINT": "local",
        "ATELIER_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    url = f"http://127.0.0.1:{free_port}"
    child = built.start("serve", log=log, env=env, shared={"/store": store.root})
    try:
        answers(child, log, f"{url}/ping")
        assert built.run(*built.healthcheck, env=env).returncode == 0
        body = {"prompt": "a red circle on a blue background", "num_inference_steps": 10, "width": 128,
                "height": 128, "seed": 1}  # fmt: skip
        response = httpx.post(f"{url}/invocations", json=body, timeout=180, trust_env=False)
        assert response.status_code == 200, response.text
        [made] = response.json()["generated_images"]
        picture = Picture.open(io.BytesIO(base64.b64decode(made))).convert("RGB")
        middle, corner = picture.getpixel((64, 64)), picture.getpixel((4, 4))
        assert isinstance(middle, tuple) and isinstance(corner, tuple)
        assert picture.size == (128, 128) and middle[0] > middle[2] and corner[2] > corner[0]
        wrong = httpx.post(f"{url}/invocations", json={"prompt": 1}, trust_env=False)
        assert wrong.status_code == 422
        goes_when_asked(child, log)
    finally:
        child.stop()
    assert [each.key for each in store.list("models/")] == []


def test_weights_are_not_baked_in_without_being_asked_for(builder: Builder) -> None:
    plain = builder.build("inference", COMPUTE="cpu")
    assert list((plain.root / "opt" / "weights").iterdir()) == []


def a_job(folder: Path, hyperparameters: dict[str, str]) -> Path:
    config = folder / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    return given_away(folder)


def nearly_trained(folder: Path) -> None:
    """What a run of the demo's recipe keeps before its last phase: here of few pictures and untrained."""
    from dataclasses import astuple

    from workers.training.demo.networks import build_vae
    from workers.training.demo.state import save_state
    from workers.training.demo.train_text import short_text
    from workers.training.demo.train_unet import POOLS, make_pool

    vae = build_vae().state_dict()
    save_state(folder / "vae-finished.pt", vae)
    save_state(folder / "text-finished.pt", short_text().state_dict())
    for side in POOLS:
        pool = make_pool(vae, side, 25, seed=side)
        scenes = [astuple(scene) for scene in pool.scenes]
        save_state(folder / f"pool-{side}.pt", {"latents": pool.latents, "scenes": scenes})
    given_away(folder)


def test_training_runs_a_job_to_its_model_and_says_why_another_fails(
    image: Callable[..., Image], tmp_path: Path
) -> None:
    built = image("training")
    job = a_job(tmp_path / "job", {"recipe": '"demo"', "unet-steps": "1", "minutes": "30"})
    nearly_trained(job / "checkpoints")
    done = built.run("train", entry=True, shared={"/opt/ml": job}, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    made = job / "model" / "atelier-demo.safetensors"
    assert modelfile.family(modelfile.read_header(made)) == "sd1"
    assert (job / "checkpoints" / "unet.pt").is_file() and not (job / "output").exists()
    wrong = a_job(tmp_path / "wrong", {"recipe": "dreambooth"})
    failed = built.run("train", entry=True, shared={"/opt/ml": wrong})
    assert failed.returncode == 1
    assert (wrong / "output" / "failure").read_text().startswith("There is no recipe named 'dreambooth'")


def test_training_answers_serve_too(
    image: Callable[..., Image], store: FilesystemBlobStore, tmp_path: Path, free_port: int
) -> None:
    built, log = image("training"), tmp_path / "log"
    env = {
        "SAGEMAKER_BIND_TO_PORT": str(free_port),
        "ATELIER_STORE": "file:///store",
        "ATELIER_ENDPOINT": "tuning",
    }
    child = built.start("serve", log=log, env=env, shared={"/store": store.root})
    try:
        url = f"http://127.0.0.1:{free_port}"
        answers(child, log, f"{url}/ping")
        body: dict[str, Any] = {"task": "training", "hyperparameters": {"recipe": "demo", "minutes": 1e-9}}
        late = httpx.post(f"{url}/invocations", json=body, timeout=180, trust_env=False)
        assert (late.status_code, late.json()["error"]["code"]) == (410, "expired")
        goes_when_asked(child, log)
    finally:
        child.stop()


def test_tasks_does_a_task_and_ends(
    image: Callable[..., Image], store: FilesystemBlobStore, tmp_path: Path
) -> None:
    store.put(
        "imports/one", zipped(program(b"}" + text("w") + tensor("0", 2, (2,), (1,)) + b"s"), {"0": bytes(8)})
    )
    given_away(store.root)
    words = ["convert", "--store", "file:///store", "--task", "t1", "--source", "imports/one"]
    ended = image("tasks").run(*words, "--name", "one.pt", entry=True, shared={"/store": store.root})
    assert ended.returncode == 0, ended.stderr
    made = store.get(keys.task_output("t1"))
    said = json.loads(store.get(keys.task_result("t1")))
    assert said == {"outcome": {"sha256": hashlib.sha256(made).hexdigest(), "size": len(made)}}
    assert b'"w"' in made


def test_the_index_has_what_the_gpu_images_lock(tmp_path: Path) -> None:
    """Resolved anew, from the index's hashes and each wheel's metadata: gigabytes of CUDA are not fetched.
    pip does not read metadata in ranges while it requires hashes, so that they are compared here instead.
    """
    chosen = lock.FILES["worker-cuda"]
    found = lock.resolved(lock.installer(tmp_path / "pip"), chosen)
    assert found == lock.read(lock.LOCKS / "worker-cuda.txt")
