"""CPU work of its own kind: foreign model files made into safetensors, folders into one file, hashes.

A program for one task at a time (`python -m workers.tasks`). Foreign files are read in a confined child
process that imports nothing they name.
"""
