"""Prompts into contexts: chunks through CLIP, clip skip, emphasis; each prompt encoded once and
remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from atelier.contract.errors import LimitExceeded
from atelier.contract.limits import MAX_CHUNKS
from atelier.prompt import chunks
from workers.engine.loader.embeddings import Embedding
from workers.engine.rows import Context
from workers.engine.text import emphasis
from workers.engine.text.reading import READINGS, Read, Reading, padded, read

MOST_BYTES = 256 * 2**20
"""Of encoded prompts: over a thousand for SD 1.5."""


@dataclass(frozen=True)
class TextOptions:
    """What an encoding depends on besides the prompt and the encoder's weights."""

    clip_skip: int = 1
    clip_l_skip: bool = False
    """Clip skip chooses the layer of SDXL's first encoder, too."""
    emphasis: str = "Original"
    backtrack: int = 20
    old_emphasis: bool = False
    embeddings: tuple[Embedding, ...] = ()
    """Those whose names mean them; each is the same object as long as it is in host memory."""


@contextmanager
def _spliced(module: torch.nn.Module, fixes: Sequence[Sequence[tuple[int, torch.Tensor]]]) -> Iterator[None]:
    """Let vectors stand in the encoder's input: for chunk i those of `fixes[i]`, from their places on."""

    def splice(_: torch.nn.Module, __: object, embedded: torch.Tensor) -> torch.Tensor:
        for row, found in zip(embedded, fixes, strict=True):
            for place, vectors in found:
                fitting = vectors[: len(row) - 1 - place]
                row[place : place + len(fitting)] = fitting.to(row)
        return embedded

    if not any(fixes):
        yield
        return
    hook = module.get_submodule("embeddings.token_embedding").register_forward_hook(splice)
    try:
        yield
    finally:
        hook.remove()


Upload = Callable[[torch.Tensor], torch.Tensor]
"""Brings a tensor of the host to where the text encoders are."""


def encode(
    modules: Sequence[torch.nn.Module], family: str, prompt: str, options: TextOptions, upload: Upload
) -> Context:
    """A prompt through the text encoders of a checkpoint: [77 * chunks, width] and the pooled text, in
    float32 where the encoders are. Their vectors are joined token by token. Each chunk is read and weighted
    on its own.
    """
    cut = chunks.cut(
        prompt,
        backtrack=options.backtrack,
        emphasis=options.emphasis,
        old_emphasis=options.old_emphasis,
        embeddings={each.name: each.count for each in options.embeddings},
    )
    if len(cut) > MAX_CHUNKS:
        raise LimitExceeded(
            f"A prompt has {len(cut):,} chunks of 75 tokens, counting BREAKs and embeddings; at most "
            f"{MAX_CHUNKS} may be.",
            detail={"chunks": len(cut), "limit": MAX_CHUNKS},
        )
    every = [
        _encode(module, reading, cut, options, upload)
        for module, reading in zip(modules, READINGS[family], strict=True)
    ]
    pooled = next((each.pooled for each in every if each.pooled is not None), None)
    return Context(torch.cat([each.states for each in every], dim=-1), pooled)


def _encode(
    module: torch.nn.Module,
    reading: Reading,
    cut: Sequence[chunks.Chunk],
    options: TextOptions,
    upload: Upload,
) -> Read:
    """Chunks through one text encoder: their weighted states one after another, [77 * chunks, width]."""
    ids = upload(torch.tensor([padded(chunk.ids, reading.padding) for chunk in cut]))
    width = int(module.get_submodule("embeddings.token_embedding").weight.shape[1])
    vectors = {each.name: each.of_width(width) for each in options.embeddings}
    fixes = [
        [(place, found) for place, name in chunk.fixes if (found := vectors[name]) is not None]
        for chunk in cut
    ]
    layer = reading.chosen(options.clip_skip, clip_l_skip=options.clip_l_skip)
    with _spliced(module, fixes):
        out = read(module, ids, reading, layer)
    states = out.states.float()
    weighted = [
        emphasis.apply(state, upload(torch.tensor(chunk.weights)), options.emphasis)
        if chunk.emphasised
        else state
        for state, chunk in zip(states, cut, strict=True)
    ]
    return Read(torch.cat(weighted), None if out.pooled is None else out.pooled.float())


class PromptCache:
    """Contexts by what they depend on, the least recently used forgotten first; at most `most_bytes` of
    them.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._size = most_bytes, 0
        self._kept: OrderedDict[tuple[str, str, TextOptions], Context] = OrderedDict()

    def get(self, weights: str, prompt: str, options: TextOptions) -> Context | None:
        """The remembered context, which becomes the most recently used."""
        key = (weights, prompt, options)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, weights: str, prompt: str, options: TextOptions, context: Context) -> None:
        """Remember a context."""
        self._kept[weights, prompt, options] = context
        self._size += context.tensor.nbytes
        while self._size > self._most and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.tensor.nbytes
