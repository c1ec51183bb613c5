"""What the ports are plugged into, by technology. Chosen in portal.bootstrap, imported nowhere else."""
