"""Trains the demo checkpoint: ``python -m workers.training.demo.train`` (or ``make demo``).

Three phases, each of which writes its state every few minutes and resumes from it: the
autoencoder, the text encoder, then both text encoder and denoiser together. The checkpoint is
written anew with every save of the last phase.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from workers.training.demo.networks import Weights, save_checkpoint, to_ldm
from workers.training.demo.state import Clock, load_state, log, save_state
from workers.training.demo.train_text import full_vocabulary, train_text
from workers.training.demo.train_unet import train_unet
from workers.training.demo.train_vae import finished, test_pictures, train_vae


@dataclass(frozen=True)
class Steps:
    """How many steps each phase takes."""

    vae: int
    text: int
    unet: int


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("models/atelier-demo.safetensors"))
    parser.add_argument("--state", type=Path, default=Path("data/demo-state"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop then; resume later")
    parser.add_argument("--vae-steps", type=int, default=1800)
    parser.add_argument("--text-steps", type=int, default=2000)
    parser.add_argument("--unet-steps", type=int, default=2000)
    return parser.parse_args(argv)


def finished_vae(state: Path, steps: int, clock: Clock) -> Weights | None:
    """The whitened autoencoder, from disk once it has been trained."""
    path = state / "vae-finished.pt"
    stored = load_state(path)
    if stored is None:
        trained = train_vae(state, steps, clock)
        if trained is None:
            return None
        stored = finished(trained, test_pictures(192))
        save_state(path, stored)
    return stored


def finished_text(state: Path, steps: int, clock: Clock) -> Weights | None:
    """The pretrained text encoder, from disk once it has been trained."""
    path = state / "text-finished.pt"
    stored = load_state(path)
    if stored is None:
        stored = train_text(state, steps, clock)
        if stored is not None:
            save_state(path, stored)
    return stored


def train(out: Path, folder: Path, steps: Steps, clock: Clock) -> bool:
    """Run the phases, with their states in `folder`, and write the checkpoint `out`; False where time ran out
    before everything was trained.
    """
    vae = finished_vae(folder, steps.vae, clock)
    text = finished_text(folder, steps.text, clock)
    if vae is None or text is None:
        return False

    def export(unet: Weights, trained_text: Weights) -> None:
        """Write the single file."""
        weights = to_ldm(unet, vae, full_vocabulary(trained_text))
        save_checkpoint(weights, out, {})
        log.info("wrote %s", out)

    return train_unet(folder, vae, text, steps.unet, clock, export)


def main(argv: list[str] | None = None) -> int:
    """Run the phases; 0 when everything is trained, 1 when time ran out before."""
    options = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    steps = Steps(options.vae_steps, options.text_steps, options.unet_steps)
    if train(options.out, options.state, steps, Clock(options.minutes)):
        return 0
    log.info("out of time; run again to continue")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
