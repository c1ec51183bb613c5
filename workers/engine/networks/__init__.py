"""Networks that change a checkpoint: their mathematics, their names, how they are bound to a slot."""
