"""What a worker makes of bodies: signatures, attempts that count, results, errors. The engine is scripted."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from atelier import infotext
from atelier.contract import keys, signing
from atelier.contract.errors import (
    AtelierError,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    NotPermitted,
    OutOfMemory,
    UnknownName,
    UnsupportedContract,
    WorkerUnavailable,
)
from atelier.contract.models import Catalogue, ModelRef
from atelier.contract.parts import Action, JobStamp, PartControl, PartResult
from tests.contract.worker_doubles import (
    ENDPOINT,
    KEY,
    CountingStore,
    ScriptedEngine,
    SetClock,
    a_body,
    a_checkpoint,
    a_part,
    a_stamp,
    a_state,
)
from workers.inference.direct import DirectCalls
from workers.inference.executor import Executor
from workers.inference.tasks import Tasks
from workers.runtime.server import Answer, Invocation
from workers.runtime.side_thread import SideThread, Watch, Watched

Meanwhile = Callable[[Executor, asyncio.Event], Coroutine[Any, Any, Any]]
RESULT = keys.result("j1", "p1", 1)


class Bench:
    """A worker's inside without HTTP: `ask` answers a body while `meanwhile` runs beside it."""

    def __init__(self, root: Path, engine: ScriptedEngine, key: bytes = KEY) -> None:
        self.clock = SetClock()
        self.store = CountingStore(root, self.clock)
        self.engine = engine
        self.side = SideThread(self.store, ENDPOINT, a_state, clock=self.clock)
        self.key = key
        self.held: list[str] = []
        self.watched = threading.Event()
        self._watch = self.side.watch
        self.side.watch = self.watch  # type: ignore[method-assign]
        self.current(1)

    def watch(self, stamp: JobStamp, work: Watched) -> Watch:
        watch = self._watch(stamp, work)
        self.watched.set()
        return watch

    def hold(self, models: Sequence[ModelRef]) -> Callable[[], None]:
        names = [model.name for model in models]
        self.held += names
        return lambda: [self.held.remove(name) for name in names] and None

    def current(self, attempt: int, action: Action | None = None) -> None:
        control = PartControl(attempt=attempt, action=action)
        self.store.put(keys.part_control("j1", "p1"), control.model_dump_json().encode())

    def ask(
        self,
        *bodies: dict[str, Any],
        meanwhile: Callable[[Executor, asyncio.Event], Coroutine[Any, Any, Any]] | None = None,
    ) -> list[Any]:
        async def talk() -> list[Any]:
            executor = Executor(
                self.engine,  # type: ignore[arg-type]
                self.store,
                self.side,
                clock=self.clock,
                hold=self.hold,
            )
            direct = DirectCalls(executor, self.store, ENDPOINT)
            tasks, gone = Tasks(executor, direct, ENDPOINT, self.key), asyncio.Event()
            beside = [meanwhile(executor, gone)] if meanwhile else []
            answers = [tasks(Invocation(body, gone)) for body in bodies]
            try:
                found = await asyncio.wait_for(asyncio.gather(*answers, *beside, return_exceptions=True), 20)
            finally:
                executor.close()
            return [each.body if isinstance(each, Answer) else each for each in found[: len(bodies)]]

        answers = asyncio.run(talk())
        if len(answers) == 1 and isinstance(answers[0], Exception):
            raise answers[0]
        return answers

    def result(self) -> PartResult:
        return PartResult.model_validate_json(self.store.get(RESULT))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, ScriptedEngine(at_once=True))


@pytest.fixture
def slow(tmp_path: Path) -> Bench:
    """A bench whose engine ends a part only when told."""
    return Bench(tmp_path, ScriptedEngine())


async def submitted(bench: Bench) -> None:
    assert await asyncio.to_thread(bench.watched.wait, 10)


def test_a_job_stores_its_pictures_and_then_its_result(bench: Bench) -> None:
    part = a_part(prompt="a red circle, bokeh", negative_prompt="blurry")
    assert bench.ask(a_body(part, a_stamp())) == [{"job": "j1", "part": "p1", "attempt": 1, "result": RESULT}]
    result = bench.result()
    assert [picture.seed for picture in result.pictures] == [1, 2]
    assert bench.store.writes[-1][1] == RESULT
    for picture in result.pictures:
        data = bench.store.get(picture.key)
        assert len(data) == picture.size
        assert picture.infotext == infotext.render(part, picture.index)
    assert list(result.timeline) == ["received", "loading", "steps", "decoding", "storing", "stored"]


def test_a_stored_png_is_plain_rgb_with_both_chunks_and_the_pixels_of_the_engine(bench: Bench) -> None:
    part = a_part(prompt="ein roter Kreis")
    bench.ask(a_body(part, a_stamp()))
    picture = bench.result().pictures[1]
    data = bench.store.get(picture.key)
    header = data[16:29]
    assert (header[8], header[9], header[12]) == (8, 2, 0)  # bits, colour type RGB, no interlace
    assert data.index(b"tEXtparameters\0") < data.index(b"tEXtatelier\0") < data.index(b"IDAT")
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.info["parameters"] == picture.infotext
    assert picture.infotext.endswith("Version: v1.10.1, Engine: Atelier 0.1.0")
    assert json.loads(image.info["atelier"]) == {"recipe": part.recipe_hash, "engine": "Atelier 0.1.0"}
    assert (numpy.asarray(image) == 2).all()


def test_an_infotext_beyond_latin_1_comes_back_from_the_png(bench: Bench) -> None:
    bench.ask(a_body(a_part(prompt="赤い円 😀"), a_stamp()))
    image = Image.open(io.BytesIO(bench.store.get(bench.result().pictures[0].key)))
    assert image.info["parameters"].startswith("赤い円 😀\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body["job"].pop("signature"),
        lambda body: body["job"].update(signature="0" * 64),
        lambda body: body["job"].update(attempt=2),
        lambda body: body["resolved"].update(prompt="another"),
        lambda body: body.update(job="j1"),
        lambda body: body.update(job=None),
        lambda body: body.update(more=float("nan")),
    ],
)
def test_a_job_without_a_valid_signature_is_refused_and_computes_nothing(
    bench: Bench, spoil: Callable[..., Any]
) -> None:
    body = a_body(a_part(), a_stamp())
    spoil(body)
    with pytest.raises(NotPermitted):
        bench.ask(body)
    assert bench.engine.handles == []


def test_a_worker_without_a_key_refuses_every_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ScriptedEngine(at_once=True), key=b"")
    with pytest.raises(NotPermitted):
        bench.ask(a_body(a_part(), a_stamp()))


def test_a_job_signed_for_another_endpoint_is_refused(bench: Bench) -> None:
    with pytest.raises(NotPermitted, match="elsewhere"):
        bench.ask(a_body(a_part(), a_stamp(endpoint="elsewhere")))


@pytest.mark.parametrize("version", ["2.0", "1.999", "x", ""])
def test_a_contract_the_worker_does_not_speak_is_refused(bench: Bench, version: str) -> None:
    with pytest.raises(UnsupportedContract):
        bench.ask(a_body(a_part(contract=version), a_stamp()))


def test_an_unknown_task_is_refused_with_the_nearest_name(bench: Bench) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'text-to-image'"):
        bench.ask({"task": "text-to-imag", "txt2img_payload": {}})


def test_a_signed_part_that_is_malformed_names_the_bad_field(bench: Bench) -> None:
    body = a_body(a_part(), a_stamp())
    body["resolved"]["steps"] = "many"
    with pytest.raises(InvalidRequest, match=r"resolved\.steps"):
        bench.ask(signing.sign(body, KEY))


@pytest.mark.parametrize(("attempt", "action"), [(2, None), (1, Action.CANCEL), (7, Action.STOP_NOW)])
def test_an_attempt_that_does_not_count_returns_at_once(
    bench: Bench, attempt: int, action: Action | None
) -> None:
    bench.current(attempt, action)
    [answer] = bench.ask(a_body(a_part(), a_stamp()))
    assert answer["result"] == "superseded"
    assert bench.engine.handles == []
    assert not list(bench.store.list("jobs/j1/p1/1/"))


def test_an_attempt_without_a_control_object_does_not_count(bench: Bench) -> None:
    bench.store.delete(keys.part_control("j1", "p1"))
    assert bench.ask(a_body(a_part(), a_stamp()))[0]["result"] == "superseded"


@pytest.mark.parametrize("action", [Action.STOP_NOW, Action.SKIP, Action.FINISH_CURRENT])
def test_a_part_stopped_before_it_began_has_an_empty_result(bench: Bench, action: Action) -> None:
    bench.current(1, action)
    assert bench.ask(a_body(a_part(), a_stamp()))[0]["result"] == RESULT
    assert bench.engine.handles == []
    assert bench.result().stopped
    assert bench.result().pictures == ()


def test_a_second_delivery_of_the_same_attempt_computes_nothing_again(bench: Bench) -> None:
    body = a_body(a_part(), a_stamp())
    first, second = bench.ask(body, body)
    assert first == second == bench.ask(body)[0]
    assert len(bench.engine.handles) == 1


def test_stopped_pictures_are_kept_and_marked_as_incomplete(slow: Bench) -> None:
    async def click(executor: Executor, gone: asyncio.Event) -> None:
        await submitted(slow)
        slow.side._watches[0].work.act(Action.STOP_NOW)

    slow.ask(a_body(a_part(), a_stamp()), meanwhile=click)
    result = slow.result()
    assert result.stopped
    assert not result.cancelled
    assert [picture.complete for picture in result.pictures] == [False, False]


def test_a_cancelled_part_keeps_no_picture(slow: Bench) -> None:
    async def click(executor: Executor, gone: asyncio.Event) -> None:
        await submitted(slow)
        slow.side._watches[0].work.act(Action.CANCEL)

    slow.ask(a_body(a_part(), a_stamp()), meanwhile=click)
    assert slow.result().cancelled
    assert slow.result().pictures == ()
    assert [each.key for each in slow.store.list("jobs/j1/p1/1/")] == [RESULT]


def test_an_attempt_superseded_while_it_runs_writes_no_result(slow: Bench) -> None:
    async def newer(executor: Executor, gone: asyncio.Event) -> None:
        await submitted(slow)
        slow.side._watches[0].work.act(Action.CANCEL, superseded=True)

    assert slow.ask(a_body(a_part(), a_stamp()), meanwhile=newer)[0]["result"] == "superseded"
    assert slow.store.stat(RESULT) is None


def test_a_part_the_engine_refuses_leaves_its_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ScriptedEngine(refuses=OutOfMemory("64 x 64 is the largest.")))
    with pytest.raises(OutOfMemory):
        bench.ask(a_body(a_part(), a_stamp()))
    told = json.loads(bench.store.get(keys.error("j1", "p1", 1)))
    assert told["error"]["code"] == "out_of_memory"
    assert told["error"]["message"] == "64 x 64 is the largest."
    assert bench.side._watches == []


def test_a_defect_becomes_an_internal_error_that_tells_no_secrets(slow: Bench) -> None:
    async def break_it(executor: Executor, gone: asyncio.Event) -> None:
        await submitted(slow)
        slow.engine.handles[0].fail(KeyError("/a/path/of/ours"))

    with pytest.raises(InternalError):
        slow.ask(a_body(a_part(), a_stamp()), meanwhile=break_it)
    assert b"/a/path" not in slow.store.get(keys.error("j1", "p1", 1))
    assert slow.side._watches == []


def test_work_that_is_given_up_fails_as_something_to_try_again(slow: Bench) -> None:
    async def go(executor: Executor, gone: asyncio.Event) -> None:
        await submitted(slow)
        executor.give_up()

    with pytest.raises(WorkerUnavailable):
        slow.ask(a_body(a_part(), a_stamp()), meanwhile=go)
    assert json.loads(slow.store.get(keys.error("j1", "p1", 1)))["error"]["retryable"] is True
    assert slow.store.stat(RESULT) is None


def test_progress_turns_to_storing_when_the_engine_is_done(bench: Bench) -> None:
    phases: list[str] = []
    put = bench.store.put

    def spy(key: str, data: Any, **rest: Any) -> Any:
        phases.extend(watch.work.progress().phase for watch in bench.side._watches)
        return put(key, data, **rest)

    bench.store.put = spy  # type: ignore[method-assign]
    bench.ask(a_body(a_part(seeds=(1,), subseeds=(2,)), a_stamp()))
    assert phases == ["storing", "storing"]


# --- Direct calls.


def published(bench: Bench) -> None:
    catalogue = Catalogue(models=(a_checkpoint(),), default_checkpoint="tiny")
    bench.store.put(keys.catalogue(ENDPOINT), catalogue.model_dump_json().encode())


def direct(**payload: Any) -> dict[str, Any]:
    return {"task": "text-to-image", "model": "tiny.safetensors", "txt2img_payload": payload}


def test_a_direct_call_answers_like_the_peer(bench: Bench) -> None:
    published(bench)
    [answer] = bench.ask(
        direct(prompt="a dog", seed=5, n_iter=2, batch_size=2, width=64, height=64, restore_faces=True)
    )
    assert list(answer) == ["images", "parameters", "info"]
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [5, 6, 7, 8]
    assert info["sampler_name"] == "Euler"
    assert [each["field"] for each in info["atelier"]["ignored"]] == ["restore_faces"]
    assert answer["parameters"]["steps"] == 50
    seeds = []
    for text, image in zip(info["infotexts"], answer["images"], strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(image)))
        assert picture.info["parameters"] == text
        seeds.append(picture.getpixel((0, 0))[0])
    assert seeds == [5, 6, 7, 8]


def test_a_direct_call_may_do_without_the_images(bench: Bench) -> None:
    published(bench)
    [answer] = bench.ask(direct(prompt="a dog", width=64, height=64, send_images=False))
    assert answer["images"] == []
    assert len(json.loads(answer["info"])["infotexts"]) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (direct(sampler_name="Eulr"), UnknownName),
        (direct(steps=100_000), LimitExceeded),
        ({"task": "text-to-image"}, InvalidRequest),
        ({**direct(), "model": "another"}, UnknownName),
    ],
)
def test_a_direct_call_that_cannot_be_resolved_says_why(
    bench: Bench, body: dict[str, Any], kind: type[AtelierError]
) -> None:
    published(bench)
    with pytest.raises(kind):
        bench.ask(body)


def test_a_direct_call_before_the_catalogue_is_published_may_be_tried_again(bench: Bench) -> None:
    with pytest.raises(WorkerUnavailable):
        bench.ask(direct(prompt="a dog"))


def test_a_direct_caller_who_leaves_stops_the_engine(slow: Bench) -> None:
    published(slow)

    async def leave(executor: Executor, gone: asyncio.Event) -> None:
        await asyncio.to_thread(slow.engine.submitted.wait, 10)
        gone.set()

    slow.ask(direct(prompt="a dog", width=64, height=64), meanwhile=leave)
    assert slow.engine.handles[0].actions == [Action.CANCEL]


def test_the_files_of_a_part_are_held_while_it_is_in_work_however_it_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ScriptedEngine())
    seen: list[list[str]] = []

    async def meanwhile(_executor: Executor, _gone: asyncio.Event) -> None:
        await asyncio.to_thread(bench.engine.submitted.wait, 20)
        seen.append(list(bench.held))
        bench.engine.handles[0].fail(OutOfMemory("It does not fit."))

    with pytest.raises(OutOfMemory):
        bench.ask(a_body(a_part(), a_stamp()), meanwhile=meanwhile)
    assert seen == [["tiny"]]
    assert bench.held == []
    refusing = Bench(tmp_path / "other", ScriptedEngine(refuses=UnknownName.of("sampler", "x", [])))
    with pytest.raises(UnknownName):
        refusing.ask(a_body(a_part(), a_stamp()))
    assert refusing.held == []
