"""Windows: the live viewer and the review of a run."""
