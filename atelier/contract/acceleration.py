"""What a deployment may choose of how its workers compute."""

from __future__ import annotations

from typing import Literal

Attention = Literal["auto", "sdpa", "flash", "cudnn", "efficient", "math", "xformers"]
"""How attention is computed: PyTorch's own choice of kernel (sdpa), one of its kernels first, or xformers;
auto lets the worker choose by its GPU.
"""
