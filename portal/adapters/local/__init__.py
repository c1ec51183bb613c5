"""Adapters for one machine: child processes, files and queues in memory."""
