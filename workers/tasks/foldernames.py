"""How the diffusers library names what lies in a model folder."""

from __future__ import annotations

INDEX = "model_index.json"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Sub-folders that one checkpoint is made of."""
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ENDINGS = (".safetensors", ".fp16.safetensors", ".non_ema.safetensors", ".bin", ".fp16.bin")
"""Of a part's one file, the best first."""
LARGEST_JSON = 16 * 2**20
