"""The live window: the newest raw and restored frame of a running daemon, and how it is doing."""

from __future__ import annotations

import time

from pssr_live.stream.client import Received, StreamClient
from pssr_live.stream.wire import RawHeader, RestoredHeader, Status
from pssr_live_gui import theme, words
from pssr_live_gui.controls import BannerLabel, button, on_keys, switch
from pssr_live_gui.panes import MEASURED, ElidedLabel, Pane, Panes, Picture, predicted
from pssr_live_gui.qt import QtCore, QtGui, QtWidgets

__all__ = ["LiveWindow"]

POLL_MS = 33


class LiveWindow(QtWidgets.QWidget):
    """Raw frame on the left, restored frame on the right, always the newest ones.

    Parameters
    ----------
    client : StreamClient
        Closed together with the window.
    """

    def __init__(self, client: StreamClient) -> None:
        super().__init__()
        self._client = client
        self._run_id: str | None = None
        self._status: Status | None = None
        self._last_raw_s = time.monotonic()
        self.setWindowTitle("pssr-live")
        self.setMinimumSize(900, 520)
        self.resize(1280, 760)
        self.raw = Pane("measured", MEASURED)
        self.restored = Pane("prediction", predicted(""))
        self.panes = Panes([self.raw, self.restored])
        self.banner = BannerLabel()
        self.engine = ElidedLabel("")
        self.counts = ElidedLabel("")
        theme.say_kind(self.counts, "muted")
        self.trouble = ElidedLabel("")
        self.freeze = switch(
            self, "Freeze", "Space", "hold these frames; the run goes on", lambda _: self.poll()
        )
        self.contrast = switch(
            self, "Auto contrast", "C", "follow the frames, or hold as it is", self._set_contrast
        )
        self.contrast.setChecked(True)
        self._lay_out()
        on_keys(self, ("Esc", "Q"), self.close)
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.poll)
        self._timer.start(POLL_MS)
        self.poll()

    def poll(self) -> None:
        """Show what is new."""
        if not self.freeze.isChecked():
            raw, restored = self._client.newest_raw(), self._client.newest_restored()
            if raw is not None:
                self._show_raw(raw)
            if restored is not None:
                self._show_restored(restored)
        self._show_status(self._client.status())
        self._show_banner()

    def _lay_out(self) -> None:
        fit = button(self, "Fit", "F", "show the whole field", self.panes.fit)
        foot = QtWidgets.QHBoxLayout()
        foot.setSpacing(8)
        foot.addWidget(self.counts, 1)
        for widget in (self.freeze, self.contrast, fit):
            foot.addWidget(widget)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(12, 10, 12, 8)
        layout.setSpacing(4)
        layout.addWidget(self.banner)
        layout.addWidget(self.panes, 1)
        layout.addWidget(self.engine)
        layout.addLayout(foot)
        layout.addWidget(self.trouble)

    def _show_raw(self, frame: Received[RawHeader]) -> None:
        self._follow_run(frame.header.run_id)
        self._last_raw_s = time.monotonic()
        size = frame.header.pixel_size_um
        details = words.raw_details(frame.header)
        self.panes.show_picture(self.raw, Picture(frame.pixels, size, details))

    def _show_restored(self, frame: Received[RestoredHeader]) -> None:
        header = frame.header
        self._follow_run(header.run_id)
        self.restored.title.setText(predicted(header.model))
        flags = words.restored_flags(edge=header.edge, complete=header.complete, live=header.live)
        details = words.restored_details(header)
        picture = Picture(frame.pixels, header.pixel_size_um, details, flags)
        self.panes.show_picture(self.restored, picture)

    def _follow_run(self, run_id: str) -> None:
        """Let nothing of the run before stand beside a new one."""
        if run_id != self._run_id:
            self._run_id = run_id
            self._last_raw_s = time.monotonic()
            self.restored.title.setText(predicted(""))
            self.panes.clear("no frame yet")

    def _show_status(self, status: Status | None) -> None:
        if status is None or status is self._status:
            return
        self._status = status
        self.setWindowTitle(f"pssr-live: {status.source} · {status.model}")
        self.engine.setText(words.what_runs(status))
        self.engine.setToolTip(words.engine_details(status) or self.engine.text())
        self.counts.setText(words.counts(status))
        kind, text = words.trouble(status) or ("flag", "")
        theme.say_kind(self.trouble, kind)
        self.trouble.setText(text)
        self.trouble.setToolTip("\n".join(status.warnings))

    def _show_banner(self) -> None:
        situation = words.Situation(
            connected=self._client.connected,
            status=self._client.status(),
            seen=self.raw.picture is not None,
            frozen=self.freeze.isChecked(),
            quiet_s=time.monotonic() - self._last_raw_s,
        )
        found = words.banner(situation)
        if found is None:
            self.banner.say("banner", "")
        else:
            self.banner.say(found.kind, found.text)

    def _set_contrast(self, auto: bool) -> None:
        self.panes.auto_contrast = auto

    def closeEvent(self, event: QtGui.QCloseEvent | None) -> None:  # noqa: N802
        """Leave the stream; the run does not notice."""
        self._timer.stop()
        self._client.close()
        super().closeEvent(event)
