"""Engines: run a model's network on this machine, and say honestly what runs."""
