"""pssr-live: real-time restoration of undersampled frames from point-scanning microscopes."""

__version__ = "0.1.0"
