"""The demo checkpoint: coloured shapes on coloured backgrounds, and what trains it."""
