"""LoRA and its relatives as prompt tags (see README.md)."""
