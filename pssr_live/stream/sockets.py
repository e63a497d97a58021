"""What publisher, control and client share: loopback endpoints, and threads that own sockets."""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import zmq

from pssr_live.errors import AddressError, PssrLiveError

__all__ = ["SocketOwner", "SocketThread", "bind_loopback", "check_loopback", "connect_loopback"]

_log = logging.getLogger(__name__)

_ENDPOINT = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(?P<port>\*|[0-9]{1,5})")


def check_loopback(endpoint: str, *, any_port: bool) -> str:
    """Refuse an endpoint that is not tcp on this computer's loopback.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT`` with HOST in 127.0.0.0/8, ``[::1]`` or ``localhost``.
    any_port : bool
        Accept ``*`` for the port: any free one, to bind to.

    Returns
    -------
    str
        The endpoint, with ``localhost`` replaced by 127.0.0.1 (a name could be made to mean
        another computer, and ZeroMQ does not bind to names).

    Raises
    ------
    AddressError
        Others could reach it, or it is not an endpoint at all.
    """
    parts = _ENDPOINT.fullmatch(endpoint)
    port = parts["port"] if parts else ""
    good_port = any_port if port == "*" else port != "" and 1 <= int(port) <= 65535
    if parts is None or not good_port:
        raise AddressError(
            f"endpoint {endpoint!r}",
            "it is not of the form tcp://HOST:PORT",
            f"give one such as tcp://127.0.0.1:{'*' if any_port else 5555}",
        )
    host = "127.0.0.1" if parts["host"].lower() == "localhost" else parts["host"]
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: whatever it resolves to now, it may not tomorrow
        loopback = False
    if not loopback:
        raise AddressError(
            f"endpoint {endpoint!r}",
            "other computers could reach it, and this version speaks over loopback only",
            f"use tcp://127.0.0.1:{port}, through an SSH tunnel if the other end is elsewhere",
        )
    return f"tcp://{host}:{port}"


def bind_loopback(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind to a loopback endpoint.

    Parameters
    ----------
    socket : zmq.Socket
        Socket with all its options set.
    endpoint : str
        As for `check_loopback`; port ``*`` is any free one.

    Returns
    -------
    str
        The endpoint with the real port.

    Raises
    ------
    AddressError
        The endpoint is refused, not there, or in use.
    """
    checked = check_loopback(endpoint, any_port=True)
    socket.setsockopt(zmq.IPV6, int("[" in checked))
    try:
        socket.bind(checked)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            why = "another program already uses this port (another pssr-live, perhaps)"
        else:
            why = error.strerror or str(error)
        raise AddressError(
            f"cannot listen at {endpoint}", why, "choose another port, or * for any free one"
        ) from error
    return socket.get_string(zmq.LAST_ENDPOINT)


def connect_loopback(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect to a loopback endpoint; ZeroMQ keeps trying until somebody listens there.

    Parameters
    ----------
    socket : zmq.Socket
        Socket with all its options set.
    endpoint : str
        As for `check_loopback`, with a port.

    Raises
    ------
    AddressError
        The endpoint is refused.
    """
    checked = check_loopback(endpoint, any_port=False)
    socket.setsockopt(zmq.IPV6, int("[" in checked))
    socket.connect(checked)


class SocketThread:
    """A thread that alone uses its ZeroMQ sockets, and the means to wake it and to end it.

    Parameters
    ----------
    name : str
        Name of the thread.
    run : callable
        What it does: it polls `wakeups` beside its own sockets, each time calls `clear` and only
        then looks at what others left for it (`closing` among it), returns soon after `closing`
        is set, and closes its own sockets before it returns.

    Attributes
    ----------
    context : zmq.Context
        Context for the thread's sockets.
    wakeups : zmq.Socket
        Readable when somebody called `wake`.
    closing : threading.Event
        Set once by `close`.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._run = run
        # The owner closes it; a thread that nobody closed must not keep a dying program alive.
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)
        self.closing = threading.Event()
        self.context = zmq.Context()
        self.wakeups = self.context.socket(zmq.PAIR)
        self._waker = self.context.socket(zmq.PAIR)
        self._waker_lock = threading.Lock()
        self._woken = False
        for end in (self.wakeups, self._waker):
            end.setsockopt(zmq.LINGER, 0)
            # No mark: near one, ZeroMQ may refuse a message although its queue is empty again, and
            # that wake-up would be lost. `_woken` keeps the queue at one.
            end.setsockopt(zmq.SNDHWM, 0)
            end.setsockopt(zmq.RCVHWM, 0)
        self.wakeups.bind("inproc://wakeups")
        self._waker.connect("inproc://wakeups")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make `wakeups` readable, from any thread, without waiting."""
        with self._waker_lock:
            if not self._woken and not self._waker.closed:
                self._woken = True
                self._waker.send(b"", zmq.DONTWAIT)

    def clear(self) -> None:
        """Take back all wake-ups; called by the thread itself, before it looks for work.

        Work that was left before this returns is seen by the look that follows; work that is left
        later wakes again.
        """
        while self.wakeups.poll(0):
            self.wakeups.recv(zmq.DONTWAIT)
        with self._waker_lock:
            self._woken = False

    def close(self, deadline_s: float = 5.0) -> None:
        """End the thread and wait for it. A second call does nothing.

        Parameters
        ----------
        deadline_s : float
            How long to wait, s.

        Raises
        ------
        PssrLiveError
            The thread was still busy after that time.
        """
        if self.context.closed:
            return
        self.closing.set()
        if self._thread.is_alive():
            self.wake()
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                raise PssrLiveError(
                    f"the thread {self._thread.name} did not end",
                    f"it was still busy after {deadline_s:g} s",
                    "end the program, and report this with the log",
                )
        with self._waker_lock:
            self._waker.close()
        self.wakeups.close()
        self.context.term()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as error:
            # A stream that breaks must not take the acquisition with it, nor vanish unseen.
            _log.error("the thread %s broke and does no more: %r", self._thread.name, error)
            _log.debug("where it broke", exc_info=True)


class SocketOwner:
    """Something whose sockets live in a `SocketThread`; ends it with a ``with`` block."""

    _thread: SocketThread

    def close(self, deadline_s: float = 5.0) -> None:
        """Send or answer what is still there, and end. A second call does nothing.

        Parameters
        ----------
        deadline_s : float
            How long to wait for the thread, s.

        Raises
        ------
        PssrLiveError
            The thread was still busy after that time.
        """
        self._thread.close(deadline_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
