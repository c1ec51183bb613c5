"""How fast prompts and infotexts are read: characters and texts per second, and the work on nasty texts.

    python bench/language.py [--rounds 5] [--no-nasty] [--json FILE]

Three tables: characters per second over prompts as people write them (nothing remembered of them but the
pieces of words), with the tokeniser of transformers on the same texts in the same run as a rival; infotexts
per second; and for each reader the text of 20,000 characters, among many that repeat or nest something nasty,
that takes the most work against its half. Work is counted in steps where the reader counts its own, else in
lines of Python, so it is the same on every machine; a ratio of 2 is linear, and at most 2.5 is promised.
Times are the processor's, which other programs on the machine disturb little.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import engine as against_diffusers
from figures import keep, table

from atelier import infotext
from atelier.contract.models import ModelKind, ModelRef
from atelier.contract.parts import ResolvedPart
from atelier.prompt import attention, chunks, comments, composition, networks, plan, schedule, tokens

PROMPTS = (
    "a red circle on a blue background",
    "masterpiece, best quality, (portrait of a woman:1.2), [detailed|blurred] background, soft light, "
    "((sharp focus)), by an old master, oil on canvas, 8k, <lora:paint:0.7>, [sketch:painting:0.3]",
    "wide shot of a harbour at dawn, fog, fishing boats, (reflections in the water:1.1), gulls, cinematic, "
    "35mm film grain, muted colours BREAK a lighthouse on the cliff, [warm:cold:12] light, [people]",
    "a castle on a hill :1.2 AND a stormy sea, [lightning::0.6], dramatic clouds AND photo, film :0.4",
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst "
    "quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry",
    "ein Kreis, très rouge, 日本の絵画, (süß:1.3), naïve, façade, \\(escaped\\), it's 1990's style # remark\n"
    "second line, (((three deep))), [[two deep]], a:b, 4:3",
)
LONGEST = 20_000
NASTY = (
    *"[ ] ( ) [] () ][ )( ([ ([)] \\ \\[ : | [a| [a: [| [a:b:.5] [[a:b:3]:c:5] [a|b] (a:1.2) :1.1)".split(),
    *"(a [a {| , a, AND BREAK (BREAK < <a: <a:b> # ((((a)) [[a]:1] 🎨( ab' '' é 1".split(),
    *(" ", "\n", "a, ", " AND a:1", "BREAK ", "# \n", 'a: "', "Steps: 1, "),
)
CLOSING = {"[": ":1]", "(": ":1.1)", "{": "}", "<": ":1>", '"': '"'}
STEPS = 20


def whole(text: str) -> object:
    """All that is done with a prompt before it is encoded: every text of the pass in chunks."""
    words, _ = networks.extract(comments.strip(text))
    schedules = [(schedule.compile.__wrapped__(each), weight) for each, weight in composition.parse(words)]
    timelines = [each.timeline(STEPS) for each, _ in schedules]
    return [chunks.cut(each) for each in plan.PromptPlan(schedules, timelines).distinct()]


READERS: dict[str, Callable[[str], object]] = {
    "comments.strip": comments.strip,
    "networks.extract": networks.extract,
    "composition.parse": composition.parse,
    "schedule.compile": schedule.compile.__wrapped__,
    "plan, all texts of 20 steps": lambda text: schedule.compile.__wrapped__(text).timeline(STEPS).distinct(),
    "attention.parse": attention.parse,
    "tokens.encode": tokens.encode,
    "chunks.cut": chunks.cut,
    "a whole prompt": whole,
    "infotext.parse": infotext.parse,
}
OWN_COUNT: dict[str, Callable[[str], int]] = {
    "schedule.compile": lambda text: schedule.compile.__wrapped__(text).work,
    "attention.parse": lambda text: attention.read(text).work,
}


def part() -> ResolvedPart:
    """A request with most of what an infotext can say."""
    model = ModelRef(
        kind=ModelKind.CHECKPOINT,
        name="atelier-demo",
        filename="atelier-demo.safetensors",
        sha256="0" * 64,
        blob_sha256="0" * 64,
        size=1,
        short_hash="0123456789",
    )
    return ResolvedPart(
        checkpoint=model,
        prompt=PROMPTS[1],
        negative_prompt=PROMPTS[4],
        sampler="DPM++ 2M",
        scheduler="Karras",
        steps=28,
        cfg_scale=6.5,
        width=768,
        height=512,
        seeds=(1234567890,),
        subseeds=(42,),
        subseed_strength=0.25,
        extra_params={"Hires upscale": 2, "Hires upscaler": "Latent", "Lora hashes": "paint: 0123456789ab"},
    )


def seconds(work: Callable[[], object], rounds: int, least: float = 0.05) -> float:
    """The least processor seconds of one call, over rounds that last `least` each."""
    begun = time.thread_time()
    work()
    calls = max(1, int(least / max(time.thread_time() - begun, 1e-7)))
    best = float("inf")
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(calls):
            work()
        best = min(best, (time.thread_time() - begun) / calls)
    return best


def speeds(rounds: int) -> dict[str, int]:
    """Characters per second of each reader over the prompts, and of the rival."""
    rival = against_diffusers.tokenizer()
    for each in PROMPTS:
        theirs = rival(each, add_special_tokens=False, verbose=False)["input_ids"]
        assert tokens.encode(each) == theirs, each
    readers: dict[str, Callable[[str], object]] = {
        name: reader for name, reader in READERS.items() if name != "infotext.parse"
    }
    readers["transformers CLIPTokenizer"] = lambda text: rival(text, add_special_tokens=False, verbose=False)
    size = sum(len(each) for each in PROMPTS)
    return {
        name: round(size / seconds(lambda reader=reader: [reader(each) for each in PROMPTS], rounds))
        for name, reader in readers.items()
    }


def texts(rounds: int) -> dict[str, int]:
    """Infotexts per second."""
    made = part()
    text = infotext.render(made, 0)
    return {
        "infotext.render": round(1 / seconds(lambda: infotext.render(made, 0), rounds)),
        "infotext.parse": round(1 / seconds(lambda: infotext.parse(text), rounds)),
        "characters": len(text),
    }


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python `work` runs."""
    count = 0

    def trace(frame: types.FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def nasty_texts(size: int) -> dict[str, str]:
    """Texts of at most `size` characters: each mark repeated, and repeated with what closes it behind."""
    found = {}
    for mark in NASTY:
        found[f"{mark!r} repeated"] = mark * (size // len(mark))
        closing = "".join(CLOSING.get(letter, "") for letter in reversed(mark))
        if closing:
            times = size // len(mark + closing)
            found[f"{mark!r} nested"] = mark * times + closing * times
    return found


def nasty(name: str) -> dict[str, object]:
    """The most work against its half, and the longest time, that any text takes of a reader."""
    reader = READERS[name]
    count = OWN_COUNT.get(name, lambda text: lines_run(lambda: reader(text)))
    halves, wholes = nasty_texts(LONGEST // 2), nasty_texts(LONGEST)
    ratios, slowest = {}, {}
    for shape, text in wholes.items():
        reader(text)  # what is remembered is remembered
        reader(halves[shape])
        ratios[shape] = count(text) / max(count(halves[shape]), 100)
        slowest[shape] = seconds(lambda text=text: reader(text), 2, 0.0)
    worst, longest = max(ratios, key=ratios.__getitem__), max(slowest, key=slowest.__getitem__)
    return {
        "ratio": round(ratios[worst], 2),
        "of": worst,
        "most_ms": round(1e3 * slowest[longest], 1),
        "at": longest,
    }


def show(figures: dict[str, Any], rounds: int) -> None:
    """Print the tables."""
    found, rival = figures["characters_per_s"], "transformers CLIPTokenizer"
    against = {"tokens.encode": round(found["tokens.encode"] / found[rival], 2)}
    rows = [[name, f"{speed:,}", against.get(name, "")] for name, speed in found.items()]
    print(f"Best of {rounds} rounds, one core.\n")
    print(table(("prompts", "characters/s", f"ratio to {rival}"), rows) + "\n")
    length = figures["infotexts_per_s"].pop("characters")
    rows = [[name, f"{speed:,}"] for name, speed in figures["infotexts_per_s"].items()]
    print(table((f"infotext of {length} characters", "texts/s"), rows) + "\n")
    if "nasty" in figures:
        rows = [[name, *row.values()] for name, row in figures["nasty"].items()]
        head = ("20,000 nasty characters", "work / half", "of", "most ms", "at")
        print(table(head, [[str(cell).replace("|", "\\|") for cell in row] for row in rows]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nasty", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    figures: dict[str, Any] = {
        "characters_per_s": speeds(args.rounds),
        "infotexts_per_s": texts(args.rounds),
    }
    if args.nasty:
        figures["nasty"] = {name: nasty(name) for name in READERS}
    show(figures, args.rounds)
    keep(figures, args.json)


if __name__ == "__main__":
    main()
