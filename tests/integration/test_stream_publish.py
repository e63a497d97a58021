"""Publisher and client over real sockets: what a viewer sees."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import zmq

from pssr_live.errors import AddressError, UsageError
from pssr_live.frames import Frame, Restored
from pssr_live.stream import client as client_module
from pssr_live.stream.client import StreamClient
from pssr_live.stream.connection import Connection, remove_connection, write_connection
from pssr_live.stream.publisher import Publisher
from pssr_live.stream.sockets import SocketThread
from pssr_live.stream.wire import Status, WireError, encode_raw

ANY = "tcp://127.0.0.1:*"
PATIENCE_S = 10.0

T = TypeVar("T")


def a_frame(index: int, pixels: Any = None) -> Frame:
    filled = np.full((6, 8), index % 200, np.uint16) if pixels is None else pixels
    return Frame(filled, index=index, t_source_ns=index, t_host_ns=0, pixel_size_um=0.17)


def a_restored(index: int, pixels: Any = None) -> Restored:
    return Restored(
        pixels=np.full((24, 32), index % 200, np.uint16) if pixels is None else pixels,
        index=index,
        t_source_ns=index,
        pixel_size_um=0.0425,
        channel="",
        model="neuron_mf",
        model_sha256="0" * 64,
        engine="openvino fp32 on CPU",
        engine_ms=1.0,
        latency_ms=2.0,
        edge=False,
        complete=True,
        live=True,
    )


def a_status(run_id: str, **changes: Any) -> Status:
    fields: dict[str, Any] = {
        "run_id": run_id,
        "phase": "running",
        "source": "simulated scanner",
        "model": "neuron_mf",
        "model_sha256": "0" * 64,
        "engine": None,
        "run_folder": "runs/x",
        "frames_received": 1,
        "frames_recorded": 1,
        "frames_restored": 0,
        "frames_skipped_live": 0,
        "frames_lost_at_source": 0,
        "fps_raw": None,
        "fps_restored": None,
        "latency_ms_p50": None,
        "latency_ms_p99": None,
        "uptime_s": 0.1,
        "viewers": 0,
    }
    return Status(**{**fields, **changes})


def take(client: StreamClient, what: Callable[[], T | None]) -> T:
    """Wait for what the client gives."""
    deadline = time.monotonic() + PATIENCE_S
    while (got := what()) is None:
        assert client.wait(deadline - time.monotonic()), "nothing came"
    return got


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that tells nobody."""
    deadline = time.monotonic() + PATIENCE_S
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        never.wait(0.005)


def frames_received(client: StreamClient) -> int | None:
    status = client.status()
    return status and status.frames_received


def announced(publisher: Publisher, started: int) -> Connection:
    connection = Connection(
        version=1,
        run_id=publisher.run_id,
        publish=publisher.endpoint,
        control="tcp://127.0.0.1:9",
        pid=os.getpid(),
        started_unix_ns=started,
        run_folder="runs/x",
    )
    write_connection(connection)
    return connection


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_raw_restored_and_status_reach_a_viewer(dtype: str) -> None:
    raw = (np.random.default_rng(1).random((33, 17)) * 200).astype(dtype)
    restored = np.repeat(np.repeat(raw, 4, axis=0), 4, axis=1)
    with Publisher(ANY, "run-1") as publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_raw(a_frame(4, raw))
        publisher.publish_restored(a_restored(2, restored))
        publisher.publish_status(a_status("run-1", frames_received=5))
        got_raw = take(client, client.newest_raw)
        got_restored = take(client, client.newest_restored)
        got_status = take(client, client.status)
        assert client.connected
        assert client.run_id == "run-1"
    np.testing.assert_array_equal(got_raw.pixels, raw)
    np.testing.assert_array_equal(got_restored.pixels, restored)
    assert got_raw.pixels.dtype == raw.dtype
    assert not got_raw.pixels.flags.writeable
    assert got_restored.header.prediction
    assert got_restored.header.engine == "openvino fp32 on CPU"
    assert got_status.frames_received == 5
    assert 0 <= got_raw.age_s < PATIENCE_S


def test_frames_are_given_once() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_raw(a_frame(1))
        take(client, client.newest_raw)
        assert client.newest_raw() is None


def test_who_comes_late_sees_the_last_frame_of_each_kind() -> None:
    with Publisher(ANY) as publisher:
        for index in range(3):
            publisher.publish_raw(a_frame(index))
            publisher.publish_restored(a_restored(index))
        publisher.publish_status(a_status(publisher.run_id))
        with StreamClient(publisher.endpoint) as client:
            assert take(client, client.newest_raw).header.index == 2
            assert take(client, client.newest_restored).header.index == 2
            assert take(client, client.status).run_id == publisher.run_id


def test_a_frame_sent_again_for_somebody_else_is_not_news() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as first:
        publisher.publish_raw(a_frame(1))
        take(first, first.newest_raw)
        with StreamClient(publisher.endpoint, topics=["raw"]) as second:
            take(second, second.newest_raw)
        publisher.publish_status(a_status(publisher.run_id))
        take(first, first.status)
        assert first.newest_raw() is None


def test_a_viewer_that_looks_rarely_sees_the_newest_frame_only() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        # A frame sent while somebody subscribes may come twice; here each is to be counted once.
        until(lambda: publisher.counters().viewers == 1)
        publisher.publish_raw(a_frame(0))
        take(client, client.newest_raw)
        for index in range(1, 31):
            publisher.publish_raw(a_frame(index))
            received = 1 + index
            until(lambda expected=received: client.counters().received >= expected)
        assert take(client, client.newest_raw).header.index == 30
        assert client.counters().replaced == 29


def test_topics_that_were_not_asked_for_do_not_come() -> None:
    with Publisher(ANY) as publisher:
        publisher.publish_raw(a_frame(1))
        publisher.publish_restored(a_restored(1))
        with StreamClient(publisher.endpoint, topics=("restored",)) as client:
            take(client, client.newest_restored)
            assert client.newest_raw() is None
            publisher.publish_status(a_status(publisher.run_id))  # comes in any case
            take(client, client.status)
            assert client.newest_raw() is None
            assert publisher.counters().viewers == 1


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(UsageError, match="no such topic"):
        StreamClient("tcp://127.0.0.1:5555", topics=("truth",))  # type: ignore[arg-type]


def test_viewers_are_counted_as_they_come_and_go() -> None:
    with Publisher(ANY) as publisher:
        with StreamClient(publisher.endpoint):
            until(lambda: publisher.counters().viewers == 1)
            with StreamClient(publisher.endpoint):
                until(lambda: publisher.counters().viewers == 2)
            until(lambda: publisher.counters().viewers == 1)
        until(lambda: publisher.counters().viewers == 0)


def test_a_burst_of_one_message_of_each_kind_is_never_cut() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        until(lambda: publisher.counters().viewers == 1)
        pixels = np.zeros((1024, 1024), np.uint16)
        for index in range(20):
            publisher.publish_raw(a_frame(index))
            publisher.publish_restored(a_restored(index, pixels))
            publisher.publish_status(a_status(publisher.run_id, frames_received=index))
            assert take(client, client.newest_raw).header.index == index
            assert take(client, client.newest_restored).header.index == index
            until(lambda expected=index: frames_received(client) == expected)


def test_nothing_handed_over_by_several_threads_gets_stuck() -> None:
    def hand_over(publish: Callable[[Any], None], item: Any) -> None:
        for _ in range(100):
            publish(item)

    for _ in range(10):
        with Publisher(ANY) as publisher:
            work = [
                (publisher.publish_raw, a_frame(1)),
                (publisher.publish_restored, a_restored(1)),
            ]
            threads = [threading.Thread(target=hand_over, args=one) for one in work]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        counters = publisher.counters()
        for topic in ("raw", "restored"):
            assert counters.sent[topic] + counters.replaced[topic] == 100


def test_a_system_that_cannot_tell_a_hanging_viewer_still_publishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmq, "TCP_MAXRT", 99_999)
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_raw(a_frame(1))
        take(client, client.newest_raw)


def test_a_thread_that_breaks_says_so_and_can_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    def breaks() -> None:
        raise OSError("no more sockets")

    thread = SocketThread("pssr-test", breaks)
    thread.start()
    thread.close()
    assert "pssr-test broke and does no more: OSError('no more sockets')" in caplog.text


def test_a_run_id_that_cannot_name_a_file_is_refused() -> None:
    with pytest.raises(WireError, match="run id"):
        Publisher(ANY, "../run")


def test_what_cannot_be_sent_is_said_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        with caplog.at_level(logging.WARNING):
            publisher.publish_raw(a_frame(-1))
            publisher.publish_status(a_status("another-run"))
        publisher.publish_raw(a_frame(5))
        assert take(client, client.newest_raw).header.index == 5
        assert publisher.counters().refused == 2
    assert len(caplog.records) == 1


def test_the_last_status_arrives_although_the_daemon_ends_right_after_it() -> None:
    publisher = Publisher(ANY)
    with StreamClient(publisher.endpoint) as client:
        until(lambda: publisher.counters().viewers == 1)
        publisher.publish_status(a_status(publisher.run_id, phase="finished", final=True))
        publisher.close()
        assert take(client, client.status).final
        publisher.publish_raw(a_frame(1))  # too late: dropped, no error
        publisher.close()


SUBSCRIBER = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.subscribe(b"")
socket.recv_multipart()
print("hears", flush=True)
while True:
    socket.recv_multipart()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs SIGSTOP and /proc")
def test_a_viewer_that_hangs_costs_neither_time_nor_memory_nor_the_other_viewers() -> None:
    def resident_mb() -> float:
        return (
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
        )

    pixels = np.zeros((1024, 1024), np.uint16)
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_restored(a_restored(0, pixels))
        take(client, client.newest_restored)
        command = [sys.executable, "-c", SUBSCRIBER, publisher.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hanging:
            try:
                assert hanging.stdout is not None
                assert hanging.stdout.readline() == "hears\n"
                os.kill(hanging.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, hanging.pid, os.WSTOPPED | os.WNOWAIT)
                grown, slowest = [], 0.0
                for index in range(1, 121):
                    began = time.monotonic()
                    publisher.publish_restored(a_restored(index, pixels))
                    slowest = max(slowest, time.monotonic() - began)
                    assert take(client, client.newest_restored).header.index == index
                    grown.append(resident_mb())
            finally:
                hanging.kill()
    # 120 frames of 2.1 MB are 252 MB; the hanging viewer may hold a few of them.
    assert grown[-1] - grown[0] < 40
    assert slowest < 1.0


def test_rubbish_in_the_stream_is_counted_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    rubbish = [
        [b"raw"],
        [b"raw", b"\x00\xff"],
        [b"raw", b"{}", b""],
        [b"status", b"[" * 30_000],
        [b"restored", os.urandom(50), os.urandom(50), os.urandom(5)],
    ]
    good = encode_raw(a_frame(7), "run-1")
    with zmq.Context() as context, context.socket(zmq.XPUB) as rogue:
        rogue.setsockopt(zmq.LINGER, 0)
        rogue.bind(ANY)
        with StreamClient(rogue.get_string(zmq.LAST_ENDPOINT)) as client:
            for _ in range(3):
                rogue.recv()
            rubbish.append([good[0], good[1], bytes(good[2])[:-1]])
            for count, parts in enumerate(rubbish, start=1):
                rogue.send_multipart(parts)
                until(lambda expected=count: client.counters().invalid == expected)
            rogue.send_multipart(good)
            assert take(client, client.newest_raw).header.index == 7
            assert client.counters().invalid == 6
            assert client.counters().received == 1
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


@pytest.mark.parametrize(
    "content",
    [bytes(range(255, -1, -1)) * 8, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b""],
)
def test_a_stranger_at_the_address_does_no_harm_and_the_daemon_is_seen_after_it(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CONNECTED_S", 0.2)
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
            client = stack.enter_context(StreamClient(endpoint))
            server.settimeout(PATIENCE_S)
            for _ in range(2):
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(content)
            assert not client.connected
            assert client.counters().received == 0
        with Publisher(endpoint) as publisher:
            publisher.publish_raw(a_frame(8))
            assert take(client, client.newest_raw).header.index == 8


def test_random_bytes_at_the_publish_port_do_not_harm_the_stream() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        port = int(publisher.endpoint.rsplit(":", 1)[1])
        for content in (
            os.urandom(500),
            b"POST / HTTP/1.1\r\n\r\n",
            b"\xff" * 64,
            b"\x01\x00" * 40,
        ):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(content)
        publisher.publish_raw(a_frame(3))
        assert take(client, client.newest_raw).header.index == 3


def test_a_restarted_daemon_at_the_same_address_is_seen_without_old_frames() -> None:
    first = Publisher(ANY, "run-1")
    with StreamClient(first.endpoint) as client:
        first.publish_restored(a_restored(900))
        first.publish_raw(a_frame(902))
        first.publish_status(a_status("run-1"))
        take(client, client.status)
        take(client, client.newest_raw)
        first.close()
        with Publisher(first.endpoint, "run-2") as second:
            second.publish_raw(a_frame(0))
            assert take(client, client.newest_raw).header.run_id == "run-2"
            assert client.run_id == "run-2"
            assert client.newest_restored() is None, "a frame of the run before"
            assert client.status() is None


def test_messages_of_a_run_that_is_over_are_dropped() -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as daemon:
        daemon.setsockopt(zmq.LINGER, 0)
        daemon.bind(ANY)
        with StreamClient(daemon.get_string(zmq.LAST_ENDPOINT), topics=["raw"]) as client:
            for _ in range(2):
                daemon.recv()
            for run_id, index in (("run-1", 9), ("run-2", 0), ("run-1", 10)):
                daemon.send_multipart(encode_raw(a_frame(index), run_id))
            until(lambda: client.counters().invalid == 1)
            got = take(client, client.newest_raw)
            assert (got.header.run_id, got.header.index) == ("run-2", 0)


def test_a_client_finds_the_newest_daemon_and_one_that_starts_later(runtime_folder: Path) -> None:
    with StreamClient() as client:
        assert not client.connected
        with Publisher(ANY, "old") as old, Publisher(ANY, "new") as new:
            announced(old, 1)
            connection = announced(new, 2)
            for publisher in (old, new):
                publisher.publish_status(a_status(publisher.run_id))
            until(lambda: client.run_id == "new")
            assert client.connection == connection


def test_after_a_crash_a_client_finds_the_next_daemon_within_about_a_second(
    runtime_folder: Path,
) -> None:
    crashed = Publisher(ANY, "crashed")
    announced(crashed, 1)
    crashed.publish_status(a_status("crashed"))
    crashed.publish_restored(a_restored(50))
    with StreamClient() as client:
        take(client, client.newest_restored)
        crashed.close()  # its connection file stays, as after SIGKILL
        began = time.monotonic()
        with Publisher(ANY, "next") as restarted:
            announced(restarted, 2)
            restarted.publish_restored(a_restored(0))
            assert take(client, client.newest_restored).header.run_id == "next"
            assert time.monotonic() - began < 4.0


def test_after_the_end_of_a_run_a_client_goes_to_the_next_one_at_once(runtime_folder: Path) -> None:
    with StreamClient() as client:
        with Publisher(ANY, "first") as first:
            connection = announced(first, 1)
            first.publish_status(a_status("first", phase="finished", final=True))
            assert take(client, client.status).final
            remove_connection(connection)
        with Publisher(ANY, "second") as second:
            announced(second, 2)
            second.publish_status(a_status("second"))
            until(lambda: client.run_id == "second")


def test_a_stale_file_that_claims_to_be_the_newest_is_passed_over(runtime_folder: Path) -> None:
    with Publisher(ANY, "alive") as alive:
        announced(alive, 1)
        with Publisher(ANY, "killed") as killed:
            announced(killed, 2)
        alive.publish_raw(a_frame(3))
        with StreamClient() as client:
            assert take(client, client.newest_raw).header.run_id == "alive"


def test_another_daemon_at_the_address_of_a_stale_file_is_not_taken_for_it(
    runtime_folder: Path,
) -> None:
    with Publisher(ANY, "alive") as alive, Publisher(ANY, "elsewhere") as elsewhere:
        announced(elsewhere, 1)
        stale = announced(alive, 2)
        remove_connection(stale)
        (runtime_folder / "killed.json").write_text(
            (runtime_folder / "elsewhere.json")
            .read_text()
            .replace('"elsewhere"', '"killed"')
            .replace(elsewhere.endpoint, alive.endpoint)
            .replace('"started_unix_ns":1', '"started_unix_ns":9')
        )
        alive.publish_raw(a_frame(3))
        elsewhere.publish_raw(a_frame(4))
        with StreamClient() as client:
            got = take(client, client.newest_raw)
            assert got.header.run_id == "elsewhere"


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:*",
        "tcp://*:5555",
        "tcp://[::]:*",
        "tcp://192.168.1.5:5555",
        "tcp://microscope.example.org:5555",
        "tcp://eth0:*",
        "ipc:///tmp/pssr",
        "inproc://pssr",
        "udp://127.0.0.1:5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:70000",
        "tcp://127.0.0.1:5;127.0.0.1:6",
        "",
    ],
)
def test_addresses_that_others_can_reach_are_refused_at_both_ends(endpoint: str) -> None:
    with pytest.raises(AddressError) as refused:
        Publisher(endpoint)
    assert refused.value.exit_code == 7
    assert "tcp://127.0.0.1" in str(refused.value)
    with pytest.raises(AddressError):
        StreamClient(endpoint.replace("*", "5555") or "tcp://")


def test_an_occupied_port_is_one_clear_line() -> None:
    with Publisher(ANY) as first, pytest.raises(AddressError, match="already uses this port"):
        Publisher(first.endpoint)


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.2"])
def test_every_name_of_loopback_works(host: str) -> None:
    try:
        publisher = Publisher(f"tcp://{host}:*")
    except AddressError as error:
        if host == "localhost":
            raise
        pytest.skip(f"not on this machine: {error}")
    with publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_raw(a_frame(1))
        assert take(client, client.newest_raw).header.index == 1


def test_frames_stay_valid_after_the_client_is_closed() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        publisher.publish_raw(a_frame(7, np.full((300, 300), 7, np.uint16)))
        got = take(client, client.newest_raw)
    assert (got.pixels == 7).all()


def test_waiting_ends_when_nothing_comes() -> None:
    with Publisher(ANY) as publisher, StreamClient(publisher.endpoint) as client:
        assert not client.wait(0.01)
