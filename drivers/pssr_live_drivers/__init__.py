"""Sources of frames: simulated scanner, recorded movie, Micro-Manager."""
