"""``pssr-live bench``: what this machine can do, as ratios measured within one run."""
