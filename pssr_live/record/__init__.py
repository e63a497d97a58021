"""Recording: raw and restored stacks, the acquisition log, the run folder."""
