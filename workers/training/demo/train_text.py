"""Phase 2: the text encoder, asked what a prompt says before it ever sees a picture.

Through the denoiser's loss alone twelve fresh layers learn very slowly which colour belongs to
what. Here linear heads read shape, colour, background, size and position off the last hidden
states, at the end token and at the padding after it; the heads are dropped afterwards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from workers.training.demo.networks import TEXT_WIDTH, Weights, build_text
from workers.training.demo.shapes import COLOURS, POSITIONS, SHAPES, SIZES, Scene, random_scene
from workers.training.demo.state import Clock, Phase
from workers.training.demo.wordings import (
    END,
    LENGTH,
    START,
    TOKENS,
    VOCABULARY,
    attributes,
    caption,
    split,
)

STRANGERS = 10
KNOWN = (START, END, *dict.fromkeys(TOKENS.values()))
ROW_OF = {f"<{i}>": len(KNOWN) + i for i in range(STRANGERS)} | {
    word: KNOWN.index(token) for word, token in TOKENS.items()
}
CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(COLOURS) + 1, len(SIZES), len(POSITIONS))
OFFSET = 0.25
DEVIATION = 0.02


def short_text() -> CLIPTextModel:
    """The text encoder with a vocabulary of the known words and ten strangers only.

    The last norm's bias starts off zero so that the encoding's mean stays off zero too:
    A1111's "Original" emphasis divides by it.
    """
    text = build_text(len(KNOWN) + STRANGERS)
    last = [m for m in text.modules() if isinstance(m, nn.LayerNorm)][-1]
    nn.init.constant_(last.bias, OFFSET)
    return text


def rows(texts: list[str]) -> Tensor:
    """The short vocabulary's rows of prompts, (n, 77), padded with END as SD1.5 pads."""
    table = torch.full((len(texts), LENGTH), 1)
    table[:, 0] = 0
    for i, text in enumerate(texts):
        words = [ROW_OF[word] for word in split(text)]
        table[i, 1 : 1 + len(words)] = torch.tensor(words, dtype=torch.long)
    return table


@torch.no_grad()
def meet_strangers(text: CLIPTextModel) -> None:
    """Give the strangers new random rows, so that any row of the vocabulary is one of them."""
    embedding = text.get_input_embeddings().weight
    embedding[len(KNOWN) :].normal_(0.0, DEVIATION)


def full_vocabulary(weights: Weights) -> Weights:
    """The weights with the full vocabulary: learned rows in place, others small and random."""
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    generator = torch.Generator().manual_seed(7)
    table = torch.randn(VOCABULARY, TEXT_WIDTH, generator=generator) * DEVIATION
    table[list(KNOWN)] = weights[name][: len(KNOWN)]
    return weights | {name: table}


class Questions(nn.Module):
    """Linear heads that read the attributes off a hidden state."""

    def __init__(self) -> None:
        """One head for all five attributes' classes."""
        super().__init__()
        self.head = nn.Linear(TEXT_WIDTH, sum(CLASSES))

    def forward(self, hidden: Tensor, answers: Tensor) -> Tensor:
        """Mean cross-entropy over attributes; hidden (n, k, width), answers (n, 5)."""
        logits = self.head(hidden.float()).split(CLASSES, dim=-1)
        losses = [
            F.cross_entropy(part.flatten(0, 1), answers[:, None, i].expand(part.shape[:2]).flatten())
            for i, part in enumerate(logits)
        ]
        return torch.stack(losses).mean()


def prompts(count: int, rng: np.random.Generator) -> tuple[list[str], list[Scene]]:
    """Random prompts, none twice, and their scenes."""
    found: dict[str, Scene] = {}
    while len(found) < count:
        scene = random_scene(rng)
        found.setdefault(caption(scene, rng), scene)
    return list(found), list(found.values())


def train_text(state: Path, steps: int, clock: Clock) -> Weights | None:
    """Train or resume the text encoder; its averaged weights once done, else None."""
    rng = np.random.default_rng()
    text, questions = short_text(), Questions()
    modules = {"text": text, "questions": questions}
    phase = Phase(state / "text.pt", modules, {"text": 1e-3, "questions": 2e-3}, steps, decay=0.99)

    def loss_of(step: int) -> Tensor:
        """Ask at the end token and at two random places of the padding."""
        meet_strangers(text)
        texts, scenes = prompts(64, rng)
        answers = torch.tensor([attributes(t, s) for t, s in zip(texts, scenes, strict=True)])
        ends = torch.tensor([1 + len(split(t)) for t in texts])[:, None]
        length = LENGTH if step % 4 == 0 else 28
        later = ends + (torch.rand(len(texts), 2) * (length - ends)).long()
        places = torch.cat([ends, later], dim=1)[..., None].expand(-1, -1, TEXT_WIDTH)
        hidden = text(rows(texts)[:, :length]).last_hidden_state
        return questions(hidden.gather(1, places), answers)

    done = phase.run(loss_of, clock, lambda: None)
    return phase.averages["text"].values if done else None
