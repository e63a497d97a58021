"""A run as one HTML file to send or keep: ``pssr-live review RUN --html FILE``."""

from pssr_live.report.page import write_report

__all__ = ["write_report"]
