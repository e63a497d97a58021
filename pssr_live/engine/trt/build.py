"""Build an engine in a process of its own, and say how far it is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from pssr_live.engine.trt.bindings import FLAVOURS
from pssr_live.engine.trt.network import Built, Failed, Progress, Request
from pssr_live.errors import EngineError

__all__ = ["COMMAND", "build"]

# -P: nothing in the folder that the daemon was started in stands in for a library.
COMMAND = (sys.executable, "-P", "-m", "pssr_live.engine.trt.network")
"""Command line of the process that builds."""


def build(
    request: Request,
    network: bytes,
    on_progress: Callable[[float], None],
    command: Sequence[str] = COMMAND,
) -> tuple[bytes, Built]:
    """Build an engine; whatever happens to the process that does it, this one goes on.

    Parameters
    ----------
    request : Request
        What to build; ``out`` is ignored.
    network : bytes
        ONNX, the precision in it.
    on_progress : callable
        Called with 0 to 1.
    command : sequence of str
        Process that builds.

    Returns
    -------
    engine : bytes
        Serialized engine.
    built : Built
        What the library says about it.

    Raises
    ------
    EngineError
        The library refused, or the process crashed.
    """
    with tempfile.TemporaryDirectory(prefix="pssr-live-") as folder:
        out = Path(folder) / "engine"
        asked = msgspec.structs.replace(request, out=str(out))
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
            try:
                answer = _talk(process, msgspec.json.encode(asked) + b"\n" + network, on_progress)
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                if process.stdout is not None:
                    process.stdout.close()
            if isinstance(answer, Failed):
                raise EngineError(answer.what, answer.why, answer.do)
            if answer is None or code:
                raise _crash(request, code, said)
        return out.read_bytes(), answer


def _talk(
    process: subprocess.Popen[bytes], asked: bytes, on_progress: Callable[[float], None]
) -> Built | Failed | None:
    """Hand over what to build, and read until it is built, refused, or the process is gone."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    # One that has crashed does not read to the end; its exit code says so.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(asked)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()
    answer: Built | Failed | None = None
    decoder = msgspec.json.Decoder(Progress | Built | Failed)
    for line in process.stdout:
        try:
            message = decoder.decode(line)
        except msgspec.DecodeError:
            continue  # the library printed something
        if isinstance(message, Progress):
            on_progress(message.done)
        else:
            answer = message
    return answer


def _crash(request: Request, code: int, said: IO[bytes]) -> EngineError:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    why = f"its builder crashed (exit {code})"
    return EngineError(
        f"{FLAVOURS[request.engine].title} cannot build the network",
        f"{why}: {lines[-1]}" if lines else why,
        "choose another engine, or report this with the driver's version",
    )
