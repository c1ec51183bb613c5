"""Extensions: one package each, with `extension.toml`, `schema.py`, `ui.py` and `worker.py` (see
README.md).
"""
