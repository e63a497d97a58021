"""The control socket: asking a daemon for its status, and to stop."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from pssr_live.errors import AddressError, SourceError
from pssr_live.stream.control import ControlClient, ControlServer
from pssr_live.stream.wire import EngineStatus, RefusedEngine, Status

ANY = "tcp://127.0.0.1:*"
PATIENCE_MS = 10_000


class Daemon:
    """A run as the control socket sees it."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.fault: Exception | None = None

    def status(self) -> Status:
        if self.fault is not None:
            raise self.fault
        engine = EngineStatus(
            requested="auto",
            engine="openvino",
            device="CPU",
            precision="fp32",
            version="2025.4",
            threads=2,
            refused=(RefusedEngine("tensorrt", "no GPU"),),
        )
        return Status(
            run_id="run-1",
            phase="stopping" if self.stopped.is_set() else "running",
            source="simulated scanner",
            model="neuron_mf",
            model_sha256="0" * 64,
            engine=engine,
            run_folder="runs/x",
            frames_received=12,
            frames_recorded=12,
            frames_restored=8,
            frames_skipped_live=1,
            frames_lost_at_source=0,
            fps_raw=3.7,
            fps_restored=3.7,
            latency_ms_p50=110.0,
            latency_ms_p99=120.0,
            uptime_s=4.0,
            viewers=1,
        )


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def server(daemon: Daemon) -> Iterator[ControlServer]:
    with ControlServer(ANY, daemon.status, daemon.stopped.set) as running:
        yield running


@pytest.fixture
def dealer(server: ControlServer) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.setsockopt(zmq.LINGER, 0)
        asking.connect(server.endpoint)
        yield asking


def answer(asking: zmq.Socket[bytes]) -> dict[str, Any]:
    assert asking.poll(PATIENCE_MS), "no answer"
    decoded: dict[str, Any] = json.loads(asking.recv_multipart()[-1])
    return decoded


def test_a_client_learns_how_the_run_is_doing(server: ControlServer, daemon: Daemon) -> None:
    assert ControlClient(server.endpoint).status() == daemon.status()


def test_a_client_stops_the_run_and_is_told_so(server: ControlServer, daemon: Daemon) -> None:
    client = ControlClient(server.endpoint)
    assert "accepted" in client.stop()
    assert daemon.stopped.is_set()
    assert client.status().phase == "stopping"
    assert "accepted" in client.stop("run-1")  # asking twice is no error


def test_a_request_meant_for_another_run_stops_nothing(
    server: ControlServer, daemon: Daemon
) -> None:
    with pytest.raises(AddressError, match="this is run run-1, not run-0"):
        ControlClient(server.endpoint).stop("run-0")
    assert not daemon.stopped.is_set()


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"stop",
        b"\xff\x00\xfe",
        b"[" * 4000,
        b"{}",
        b'{"command": "stop"}',
        b'{"version": 2, "command": "status"}',
        b'{"version": 1, "command": "shutdown"}',
        b'{"version": 1, "command": "stop"}',
        b'{"version": 1, "command": "stop", "run_id": "run-0"}',
        b'{"version": 1, "command": "stop", "run_id": "run-1", "after_s": 60}',
    ],
    ids=lambda request_: repr(request_[:60]),
)
def test_what_is_not_a_valid_request_is_refused_in_one_line(
    server: ControlServer, daemon: Daemon, dealer: zmq.Socket[bytes], request_: bytes
) -> None:
    dealer.send(request_)
    refused = answer(dealer)
    assert refused["version"] == 1
    assert refused["ok"] is False
    assert refused["message"]
    assert "\n" not in refused["message"]
    assert not daemon.stopped.is_set()


def test_requests_with_and_without_the_empty_part_are_answered(
    server: ControlServer, dealer: zmq.Socket[bytes]
) -> None:
    request_ = b'{"version": 1, "command": "status", "run_id": "run-1"}'
    for parts in ([request_], [b"", request_]):
        dealer.send_multipart(parts)
        answered = answer(dealer)
        assert answered["ok"] is True
        assert answered["status"]["frames_received"] == 12
        assert answered["status"]["engine"]["refused"] == [{"engine": "tensorrt", "why": "no GPU"}]


def test_odd_messages_and_random_bytes_do_not_silence_the_daemon(
    server: ControlServer, dealer: zmq.Socket[bytes]
) -> None:
    dealer.send_multipart([b"a", b"b", b"c", b"d"])
    port = int(server.endpoint.rsplit(":", 1)[1])
    # The last one is a message of the first version of ZeroMQ's protocol, which needs no greeting.
    for content in (os.urandom(3000), b"POST / HTTP/1.1\r\n\r\nstop", b"\x01\x00\x05\x00stop"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(content)
    with zmq.Context() as context, context.socket(zmq.DEALER) as too_long:
        too_long.setsockopt(zmq.LINGER, 0)
        too_long.connect(server.endpoint)
        too_long.send(b" " * 5000)
        assert ControlClient(server.endpoint).status().run_id == "run-1"
        assert not too_long.poll(0)


def test_a_fault_in_the_daemon_is_an_answer_too(server: ControlServer, daemon: Daemon) -> None:
    client = ControlClient(server.endpoint)
    daemon.fault = SourceError("the camera", "unplugged", "plug it in")
    with pytest.raises(AddressError, match="unplugged"):
        client.status()
    daemon.fault = ZeroDivisionError("frames per second")
    with pytest.raises(AddressError, match="frames per second"):
        client.status()
    daemon.fault = None
    assert client.status().run_id == "run-1"


def test_nobody_there_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(AddressError, match=r"no answer within 0.05 s. check that the daemon"):
            ControlClient(endpoint, timeout_s=0.05).status()


@pytest.mark.parametrize(
    "reply",
    [b"no json", b'{"version": 1, "ok": true, "message": "fine"}', b'{"ok": 1}'],
)
def test_an_answer_that_makes_no_sense_is_one_clear_line(reply: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as odd:
        odd.setsockopt(zmq.LINGER, 0)
        odd.bind(ANY)

        def serve() -> None:
            odd.recv()
            odd.send(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(AddressError, match=r"the answer (cannot be read|has no status)"):
            ControlClient(odd.get_string(zmq.LAST_ENDPOINT)).status()
        thread.join()


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:*", "tcp://10.0.0.4:5555", "ipc:///tmp/x"])
def test_addresses_that_others_can_reach_are_refused(endpoint: str, daemon: Daemon) -> None:
    with pytest.raises(AddressError):
        ControlServer(endpoint, daemon.status, daemon.stopped.set)
    with pytest.raises(AddressError):
        ControlClient(endpoint)


def test_an_occupied_port_is_one_clear_line(server: ControlServer, daemon: Daemon) -> None:
    with pytest.raises(AddressError, match="already uses this port"):
        ControlServer(server.endpoint, daemon.status, daemon.stopped.set)


def test_a_thread_that_does_not_end_is_an_error(daemon: Daemon) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> Status:
        asked.set()
        go_on.wait(10)
        return daemon.status()

    server = ControlServer(ANY, hang, daemon.stopped.set)
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.setsockopt(zmq.LINGER, 0)
        asking.connect(server.endpoint)
        asking.send(b'{"version": 1, "command": "status"}')
        assert asked.wait(10)
        with pytest.raises(Exception, match="pssr-control did not end"):
            server.close(deadline_s=0.01)
        go_on.set()
        server.close()
