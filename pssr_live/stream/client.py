"""The client: a thread that holds only the newest frame of each kind, for viewers and scripts."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, cast

import zmq

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.stream.connection import Connection, DaemonFinder, runtime_folder
from pssr_live.stream.sockets import SocketOwner, SocketThread, check_loopback, connect_loopback
from pssr_live.stream.wire import (
    MAX_PIXEL_BYTES,
    TOPICS,
    FrameMessage,
    H_co,
    Message,
    RawHeader,
    RestoredHeader,
    Status,
    Topic,
    WireError,
    decode,
)

__all__ = ["ClientCounters", "Received", "StreamClient"]

_log = logging.getLogger(__name__)

AnyHeader: TypeAlias = RawHeader | RestoredHeader

# The status comes every 0.5 s.
CONNECTED_S = 3.0
LOOK_UP_MS = 200
RECEIVE_HIGH_WATER_MARK = 4
MESSAGES_AT_ONCE = 16
PAST_RUNS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Received(Generic[H_co]):
    """A frame that arrived.

    Attributes
    ----------
    header : RawHeader or RestoredHeader
        What the daemon says about it.
    pixels : ndarray, shape ``header.shape``, uint8, uint16 or float32
        Read-only; the memory of the message itself, kept as long as this object.
    t_received_unix_ns : int
        When it was received, ns since 1970 (UTC).
    """

    header: H_co
    pixels: Pixels
    t_received_unix_ns: int

    @property
    def age_s(self) -> float:
        """Time since the daemon published it, s (on one computer, where clocks agree)."""
        return max(0, time.time_ns() - self.header.t_sent_unix_ns) / 1e9


@dataclass(frozen=True, slots=True)
class ClientCounters:
    """What the client did so far.

    Attributes
    ----------
    received : int
        Valid messages of the daemon that it listens to.
    replaced : int
        Frames that a newer one replaced before anybody asked for them.
    invalid : int
        Messages dropped: not valid, or of another run.
    """

    received: int
    replaced: int
    invalid: int


class StreamClient(SocketOwner):
    """Receives a daemon's stream, and finds the daemon again when it was restarted.

    Parameters
    ----------
    endpoint : str or None
        The daemon's publish endpoint. None looks for the newest daemon in the connection files,
        and for another one whenever nothing is heard for a second or the run has ended.
    topics : sequence of {"raw", "restored", "status"}
        What to receive. The status comes in any case: it tells that the daemon is alive.

    Raises
    ------
    AddressError
        The endpoint is not on loopback, or is none.
    UsageError
        There is no such topic.
    StorageError
        The runtime folder, where connection files are, cannot be used.
    """

    def __init__(self, endpoint: str | None = None, topics: Sequence[Topic] = TOPICS) -> None:
        for topic in topics:
            if topic not in TOPICS:
                raise UsageError(
                    f"topic {topic!r}", "the stream has no such topic", f"use {', '.join(TOPICS)}"
                )
        self._topics = {*topics, "status"}
        self._fixed = None if endpoint is None else check_loopback(endpoint, any_port=False)
        if self._fixed is None:
            runtime_folder()  # here, where an error reaches the caller
        self._finder = DaemonFinder()
        self._newest = _Newest()
        self._connection: Connection | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._warned = False
        self._connected_at = float("-inf")
        self._thread = SocketThread("pssr-client", self._run)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """True if the daemon was heard within the last three seconds."""
        return self._newest.silent_s() < CONNECTED_S

    @property
    def run_id(self) -> str | None:
        """The run that was heard last; None before the first message."""
        return self._newest.run_id

    @property
    def connection(self) -> Connection | None:
        """Connection file of the daemon listened to; None if there is none or it was not used."""
        return self._connection

    def newest_raw(self) -> Received[RawHeader] | None:
        """Return the newest raw frame, once; None if none came since the last call."""
        return cast("Received[RawHeader] | None", self._newest.take("raw"))

    def newest_restored(self) -> Received[RestoredHeader] | None:
        """Return the newest restored frame, once; None if none came since the last call."""
        return cast("Received[RestoredHeader] | None", self._newest.take("restored"))

    def status(self) -> Status | None:
        """Return the last known status of the run heard last; None before the first."""
        return self._newest.status

    def counters(self) -> ClientCounters:
        """Return how many messages were received, replaced and dropped so far."""
        return self._newest.counters()

    def wait(self, timeout_s: float) -> bool:
        """Wait until something new has come since this last returned.

        Parameters
        ----------
        timeout_s : float
            How long at most, s.

        Returns
        -------
        bool
            False if nothing came.
        """
        return self._newest.wait(timeout_s)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._thread.wakeups, zmq.POLLIN)
        try:
            while not self._thread.closing.is_set():
                self._look_after_connection(poller)
                poller.poll(LOOK_UP_MS)
                self._thread.clear()
                if self._socket is not None:
                    self._receive(self._socket)
        finally:
            if self._socket is not None:
                self._socket.close()

    def _look_after_connection(self, poller: zmq.Poller) -> None:
        silent_s = self._newest.silent_s()
        if self._fixed is None:
            found = self._finder.another(final=self._run_is_over(), silent_s=silent_s)
            if found is not None:
                self._connection = found
                self._connect(found.publish, poller)
                return
        endpoint = self._connection.publish if self._connection is not None else self._fixed
        # ZeroMQ comes back after a lost connection, but never after it met a stranger at this
        # port, who may have been there before the daemon: so connect afresh now and then.
        since_s = time.monotonic() - self._connected_at
        if endpoint is not None and min(silent_s, since_s) > CONNECTED_S:
            self._connect(endpoint, poller)

    def _run_is_over(self) -> bool:
        """Say whether the daemon that is listened to has sent its last status."""
        status, current = self._newest.status, self._connection
        if status is None or current is None:
            return False
        return status.final and status.run_id == current.run_id

    def _connect(self, endpoint: str, poller: zmq.Poller) -> None:
        # A new socket, so that nothing of the daemon before is still on its way to us.
        if self._socket is not None:
            poller.unregister(self._socket)
            self._socket.close()
        self._warned = False
        self._connected_at = time.monotonic()
        self._newest.begin(None if self._connection is None else self._connection.run_id)
        self._socket = self._thread.context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PIXEL_BYTES)
        for topic in self._topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        connect_loopback(self._socket, endpoint)
        poller.register(self._socket, zmq.POLLIN)

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            try:
                parts = socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            try:
                self._newest.put(decode([part.buffer for part in parts]))
            except WireError as error:
                self._newest.drop()
                if not self._warned:
                    self._warned = True
                    _log.warning("a message of the stream was dropped: %s", error)
            else:
                self._finder.heard()


class _Newest:
    """The newest message of each kind, all of one run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Received[AnyHeader]] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._past: deque[str] = deque(maxlen=PAST_RUNS)
        self._expected: str | None = None
        self._heard_at = float("-inf")
        self._received = self._replaced = self._invalid = 0
        self._news = False
        self.run_id: str | None = None
        self.status: Status | None = None

    def begin(self, expected: str | None) -> None:
        """Forget which runs are over: another daemon is listened to from now on.

        Parameters
        ----------
        expected : str or None
            The run that it must be; None for any.
        """
        with self._changed:
            self._past.clear()
            self._expected = expected
            self._heard_at = float("-inf")

    def put(self, message: Message) -> None:
        """Keep a message if it is news.

        Raises
        ------
        WireError
            It is of a run that is over, or not of the one expected.
        """
        run_id = message.run_id if isinstance(message, Status) else message.header.run_id
        with self._changed:
            if run_id in self._past or self._expected not in (None, run_id):
                raise WireError(f"of run {run_id}, which is not the one listened to")
            if run_id != self.run_id:
                self._start_run(run_id)
            self._heard_at = time.monotonic()
            self._received += 1
            if isinstance(message, Status):
                self.status = message
            elif not self._keep(message):
                return
            self._news = True
            self._changed.notify_all()

    def _start_run(self, run_id: str) -> None:
        if self.run_id is not None:
            self._past.append(self.run_id)
        self.run_id = run_id
        self.status = None
        self._frames.clear()
        self._last.clear()

    def _keep(self, message: FrameMessage[AnyHeader]) -> bool:
        header = message.header
        # The daemon sends the last frame again to everybody when somebody subscribes.
        which = (header.index, header.t_sent_unix_ns)
        if self._last.get(header.kind) == which:
            return False
        self._last[header.kind] = which
        self._replaced += header.kind in self._frames
        self._frames[header.kind] = Received(header, message.pixels, time.time_ns())
        return True

    def drop(self) -> None:
        with self._changed:
            self._invalid += 1

    def take(self, kind: Topic) -> Received[AnyHeader] | None:
        with self._changed:
            return self._frames.pop(kind, None)

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            came = self._changed.wait_for(lambda: self._news, timeout_s)
            self._news = False
            return came

    def silent_s(self) -> float:
        """Return the time since the last message, s; infinite before the first."""
        with self._changed:
            return time.monotonic() - self._heard_at

    def counters(self) -> ClientCounters:
        with self._changed:
            return ClientCounters(self._received, self._replaced, self._invalid)
