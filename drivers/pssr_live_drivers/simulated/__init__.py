"""A simulated laser-scanning confocal: living scenes, optics, detector, scanner."""
