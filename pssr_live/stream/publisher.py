"""The publisher: raw frames, restored frames and the status, for any number of viewers.

Nothing here can make the caller wait. A frame goes into a mailbox that holds one message a topic;
one thread owns the socket and sends what it finds there. ZeroMQ drops what a slow viewer does not
take, so a viewer that hangs costs a few messages of memory and nobody's time.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import zmq

from pssr_live.frames import Frame, Restored
from pssr_live.stream.sockets import SocketOwner, SocketThread, bind_loopback
from pssr_live.stream.wire import (
    TOPICS,
    Part,
    Status,
    Topic,
    WireError,
    check_run_id,
    encode_raw,
    encode_restored,
    encode_status,
)

__all__ = ["Publisher", "PublisherCounters"]

_log = logging.getLogger(__name__)

# One message of each topic may come at once. With a mark of 2 the status was lost 3 times out of 4
# behind a raw and a restored frame; ZeroMQ counts in halves of the mark, so 3 is not enough either.
SEND_HIGH_WATER_MARK = 4
# A viewer that takes nothing for so long is disconnected; it comes back by itself.
HANGING_VIEWER_MS = 3000
LINGER_MS = 500
MAX_SUBSCRIPTION_BYTES = 1024
# A flood of them must not keep frames from being sent.
SUBSCRIPTIONS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class PublisherCounters:
    """What the publisher did so far.

    Attributes
    ----------
    viewers : int
        Subscribers of the topic that has most of them.
    sent : mapping of topic to int
        Messages handed to ZeroMQ, by topic; not those sent again to a late subscriber.
    replaced : mapping of topic to int
        Messages that a newer one replaced before they were sent, by topic.
    refused : int
        Frames or status that cannot be put into the wire format.
    """

    viewers: int
    sent: Mapping[Topic, int]
    replaced: Mapping[Topic, int]
    refused: int


class Publisher(SocketOwner):
    """Publishes one run on a loopback endpoint.

    Parameters
    ----------
    endpoint : str
        ``tcp://127.0.0.1:PORT``; port ``*`` is any free one.
    run_id : str or None
        Identifies the run in every message: letters, digits, ``_``, ``.``, ``-``. None makes one.

    Attributes
    ----------
    endpoint : str
        Where it is bound, with the real port.
    run_id : str
        As in every message.

    Raises
    ------
    AddressError
        The endpoint can be reached by others, is in use, or is none.
    WireError
        ``run_id`` cannot be used.
    """

    def __init__(self, endpoint: str, run_id: str | None = None) -> None:
        self.run_id = check_run_id(uuid.uuid4().hex if run_id is None else run_id)
        self._mailbox = _Mailbox()
        self._subscribers = _Subscribers()
        self._thread = SocketThread("pssr-publisher", self._run)
        self._socket = self._thread.context.socket(zmq.XPUB)
        try:
            self._set_options()
            self.endpoint = bind_loopback(self._socket, endpoint)
        except BaseException:
            self._socket.close(0)
            self._thread.close()
            raise
        self._thread.start()

    def publish_raw(self, frame: Frame) -> None:
        """Hand over a raw frame; returns at once, its pixels copied.

        Parameters
        ----------
        frame : Frame
            May be released when this returns.
        """
        self._put("raw", lambda: encode_raw(frame, self.run_id))

    def publish_restored(self, restored: Restored) -> None:
        """Hand over a restored frame; returns at once, its pixels copied.

        Parameters
        ----------
        restored : Restored
            Its memory may be used again when this returns.
        """
        self._put("restored", lambda: encode_restored(restored, self.run_id))

    def publish_status(self, status: Status) -> None:
        """Hand over the status; returns at once.

        Parameters
        ----------
        status : Status
            With this publisher's `run_id`.
        """

        def encode() -> tuple[Part, ...]:
            if status.run_id != self.run_id:
                raise WireError(f"status of run {status.run_id!r} in the stream of {self.run_id!r}")
            return encode_status(status)

        self._put("status", encode)

    def counters(self) -> PublisherCounters:
        """Return what was sent, replaced and refused so far, and how many viewers there are."""
        return self._mailbox.counters(self._subscribers.most())

    def _put(self, topic: Topic, encode: Callable[[], tuple[Part, ...]]) -> None:
        try:
            parts = encode()
        except WireError as error:
            # The picture is for looking at; the run and its files go on without it (P1).
            if self._mailbox.refuse():
                _log.warning("viewers cannot be shown a message of topic %s: %s", topic, error)
            return
        self._mailbox.put(topic, parts)
        self._thread.wake()

    def _set_options(self) -> None:
        self._socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._socket.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        try:
            self._socket.setsockopt(zmq.TCP_MAXRT, HANGING_VIEWER_MS)
        except zmq.ZMQError as error:  # not on every system; then a hanging viewer stays connected
            _log.debug("no TCP_MAXRT here: %s", error)

    def _run(self) -> None:
        last: dict[Topic, tuple[Part, ...]] = {}
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._thread.wakeups, zmq.POLLIN)
        try:
            while True:
                poller.poll()
                # In this order: no wake-up is lost, and what came before the end is still sent.
                self._thread.clear()
                closing = self._thread.closing.is_set()
                late = self._read_subscriptions()
                pending = self._mailbox.take()
                last.update(pending)
                for topic in TOPICS:
                    if topic in last and (topic in pending or topic in late):
                        self._socket.send_multipart(last[topic], copy=False)
                if closing:
                    return
        finally:
            self._socket.close()

    def _read_subscriptions(self) -> set[Topic]:
        """Take in who came and went; return the topics that somebody new wants."""
        wanted: set[Topic] = set()
        for _ in range(SUBSCRIPTIONS_AT_ONCE):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            if len(parts) == 1:
                wanted |= self._subscribers.changed(parts[0])
        return wanted


class _Mailbox:
    """The newest unsent message of each topic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[Topic, tuple[Part, ...]] = {}
        self._sent = dict.fromkeys(TOPICS, 0)
        self._replaced = dict.fromkeys(TOPICS, 0)
        self._refused = 0

    def put(self, topic: Topic, parts: tuple[Part, ...]) -> None:
        with self._lock:
            self._replaced[topic] += topic in self._pending
            self._pending[topic] = parts

    def take(self) -> dict[Topic, tuple[Part, ...]]:
        with self._lock:
            taken, self._pending = self._pending, {}
            for topic in taken:
                self._sent[topic] += 1
            return taken

    def refuse(self) -> bool:
        """Count what cannot be sent; true the first time."""
        with self._lock:
            self._refused += 1
            return self._refused == 1

    def counters(self, viewers: int) -> PublisherCounters:
        with self._lock:
            return PublisherCounters(
                viewers=viewers,
                sent=MappingProxyType(dict(self._sent)),
                replaced=MappingProxyType(dict(self._replaced)),
                refused=self._refused,
            )


class _Subscribers:
    """Counts subscribers of each topic from the messages of an XPUB_VERBOSER socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(TOPICS, 0)

    def changed(self, message: bytes) -> set[Topic]:
        """Count one subscription (a byte 1 and the prefix) or its end (a byte 0 and the prefix).

        Returns
        -------
        set of str
            Topics that somebody has just subscribed to.
        """
        joins, prefix = message[:1] == b"\x01", message[1:]
        if not joins and message[:1] != b"\x00":
            return set()  # not a subscription: nobody is asked to send us anything
        topics = {topic for topic in TOPICS if topic.encode().startswith(prefix)}
        with self._lock:
            for topic in topics:
                self._counts[topic] = max(0, self._counts[topic] + (1 if joins else -1))
        return topics if joins else set()

    def most(self) -> int:
        with self._lock:
            return max(self._counts.values())
