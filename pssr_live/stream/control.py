"""The control socket: ask a running daemon for its status, or to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import zmq
from msgspec import Meta, Struct

from pssr_live.errors import AddressError, PssrLiveError
from pssr_live.stream.sockets import (
    SocketOwner,
    SocketThread,
    bind_loopback,
    check_loopback,
    connect_loopback,
)
from pssr_live.stream.wire import MAX_HEADER_BYTES, WIRE_VERSION, Status

__all__ = ["ControlClient", "ControlServer", "Reply", "Request"]

_log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4096
REQUESTS_AT_ONCE = 64
LINGER_MS = 500


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client asks.

    Attributes
    ----------
    version : int
        Version of the wire format.
    command : {"status", "stop"}
        What to do.
    run_id : str or None
        The run that is meant. ``stop`` needs it, so that a request that was sent to an address
        read from an old file, or by somebody who only found the port, stops nothing.
    """

    version: Literal[1]
    command: Literal["status", "stop"]
    run_id: Annotated[str, Meta(max_length=128)] | None = None


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the daemon answers.

    Attributes
    ----------
    version : int
        Version of the wire format.
    ok : bool
        The request was accepted.
    message : str
        One line for people: what happens now, or why not.
    status : Status or None
        The answer to ``status``.
    """

    version: int
    ok: bool
    message: str
    status: Status | None = None


class ControlServer(SocketOwner):
    """Answers requests in a thread of its own.

    Parameters
    ----------
    endpoint : str
        ``tcp://127.0.0.1:PORT``; port ``*`` is any free one.
    on_status : callable
        Returns the status now. Called in the thread ``pssr-control``.
    on_stop : callable
        Begins an ordered stop and returns at once (it must not close this server). Called in the
        thread ``pssr-control``, more than once if asked more than once.

    Attributes
    ----------
    endpoint : str
        Where it is bound, with the real port.

    Raises
    ------
    AddressError
        The endpoint can be reached by others, is in use, or is none.
    """

    def __init__(
        self, endpoint: str, on_status: Callable[[], Status], on_stop: Callable[[], None]
    ) -> None:
        self._on_status = on_status
        self._on_stop = on_stop
        self._thread = SocketThread("pssr-control", self._run)
        self._socket = self._thread.context.socket(zmq.ROUTER)
        try:
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
            self._socket.setsockopt(zmq.LINGER, LINGER_MS)
            self.endpoint = bind_loopback(self._socket, endpoint)
        except BaseException:
            self._socket.close(0)
            self._thread.close()
            raise
        self._thread.start()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._thread.wakeups, zmq.POLLIN)
        try:
            while True:
                poller.poll()
                self._thread.clear()
                closing = self._thread.closing.is_set()
                self._answer_all()
                if closing:
                    return
        finally:
            self._socket.close()

    def _answer_all(self) -> None:
        for _ in range(REQUESTS_AT_ONCE):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            # [identity, "", request] from REQ, [identity, request] from DEALER.
            envelope, request = parts[:-1], parts[-1]
            if len(envelope) == 1 or (len(envelope) == 2 and envelope[1] == b""):
                reply = msgspec.json.encode(self._answer(request))
                self._socket.send_multipart([*envelope, reply], zmq.DONTWAIT)

    def _answer(self, encoded: bytes) -> Reply:
        try:
            request = msgspec.json.decode(encoded, type=Request)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return _refusal(f"not a request of version {WIRE_VERSION}: {error}")
        try:
            return self._do(request)
        except PssrLiveError as error:
            return _refusal(str(error))
        except Exception as error:
            # A fault in one answer must not silence the control socket.
            _log.warning("the request %s failed: %r", request.command, error)
            return _refusal(f"the daemon failed to do this: {error!r}")

    def _do(self, request: Request) -> Reply:
        status = self._on_status()
        if request.run_id not in (None, status.run_id):
            return _refusal(f"this is run {status.run_id}, not {request.run_id}")
        if request.command == "status":
            return Reply(version=WIRE_VERSION, ok=True, message=status.phase, status=status)
        if request.run_id is None:
            return _refusal("stop must name the run: add its run_id")
        self._on_stop()
        return Reply(version=WIRE_VERSION, ok=True, message="accepted: the run stops in order")


class ControlClient:
    """Asks a daemon. Every request has a connection of its own, so one object serves any thread.

    Parameters
    ----------
    endpoint : str
        The daemon's control endpoint, with a port.
    timeout_s : float
        How long to wait for an answer, s.

    Raises
    ------
    AddressError
        The endpoint is not on loopback, or is none.
    """

    def __init__(self, endpoint: str, timeout_s: float = 2.0) -> None:
        self.endpoint = check_loopback(endpoint, any_port=False)
        self._timeout_ms = max(1, round(timeout_s * 1000))

    def status(self) -> Status:
        """Ask how the run is doing.

        Returns
        -------
        Status

        Raises
        ------
        AddressError
            Nobody answers, or not with a status.
        """
        reply = self._ask(Request(version=WIRE_VERSION, command="status"))
        if reply.status is None:
            raise self._error("the answer has no status", "see which program listens there")
        return reply.status

    def stop(self, run_id: str | None = None) -> str:
        """Ask the daemon to stop in order; returns as soon as it has accepted.

        Parameters
        ----------
        run_id : str or None
            The run to stop; None for whichever runs there.

        Returns
        -------
        str
            What the daemon answers, one line.

        Raises
        ------
        AddressError
            Nobody answers, or the daemon refuses.
        """
        meant = self.status().run_id if run_id is None else run_id
        return self._ask(Request(version=WIRE_VERSION, command="stop", run_id=meant)).message

    def _ask(self, request: Request) -> Reply:
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, 2 * MAX_HEADER_BYTES)
            connect_loopback(socket, self.endpoint)
            socket.send(msgspec.json.encode(request))
            if not socket.poll(self._timeout_ms, zmq.POLLIN):
                raise self._error(
                    f"no answer within {self._timeout_ms / 1000:g} s",
                    "check that the daemon runs and that this is its control endpoint",
                )
            encoded = socket.recv()
        try:
            reply = msgspec.json.decode(encoded, type=Reply)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._error(
                f"the answer cannot be read ({error})", "use the same version at both ends"
            ) from error
        if not reply.ok:
            raise self._error(reply.message, "correct the request")
        return reply

    def _error(self, why: str, do: str) -> AddressError:
        return AddressError(f"control endpoint {self.endpoint}", why, do)


def _refusal(why: str) -> Reply:
    return Reply(version=WIRE_VERSION, ok=False, message=why)
