"""Compiled engines, kept from run to run: one file each, and beside it one that says what it is.

An engine is code that the GPU executes, so it is taken only if everything that it was built from is
known and the same, and its bytes are those that were written. What does not match is built anew.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from pssr_live.engine.trt.network import Built
from pssr_live.engine.trt.whole_file import write_file

__all__ = ["CachedEngine", "EngineCache", "EngineKey"]

log = logging.getLogger(__name__)


class EngineKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that an engine depends on; if any of it differs, it is another engine.

    Attributes
    ----------
    network_sha256 : str
        Of the ONNX file.
    engine, version : str
        The library and its exact version.
    sm : tuple of int
        Compute capabilities that it was built for.
    gpu, driver, system : str or None
        GPU, version of its driver, operating system. None: any; only for engines of TensorRT-RTX
        that were built ahead of time.
    shape : tuple of int
        Of the one window that it takes: 1, frames, H, W.
    precision : str
        That was asked for.
    flags : tuple of str
        What else it was built with.
    """

    network_sha256: str
    engine: str
    version: str
    sm: tuple[int, ...]
    gpu: str | None
    driver: str | None
    system: str | None
    shape: tuple[int, int, int, int]
    precision: str
    flags: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of all of it, hexadecimal."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def serves(self, wanted: EngineKey) -> bool:
        """Whether an engine with this key can stand where one with the wanted key is asked for."""
        open_ended = msgspec.structs.replace(
            wanted,
            sm=self.sm if set(wanted.sm) <= set(self.sm) else wanted.sm,
            gpu=self.gpu and wanted.gpu,
            driver=self.driver and wanted.driver,
            system=self.system and wanted.system,
        )
        return self == open_ended


class _Sidecar(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What lies beside an engine."""

    format: Literal[1]
    model: str
    key: EngineKey
    sha256: str
    built: Built


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """An engine out of the cache.

    Attributes
    ----------
    path : Path
        Its file; the sidecar's has the suffix ``.json``.
    content : bytes
        The engine.
    built : Built
        What the library said when it was built.
    """

    path: Path
    content: bytes
    built: Built


class EngineCache:
    """A folder of engines.

    Parameters
    ----------
    folder : Path
        Where; made when the first engine is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, model: str, wanted: EngineKey) -> CachedEngine | None:
        """Look for an engine; damaged ones that come into question are deleted.

        Parameters
        ----------
        model : str
            Name of the model.
        wanted : EngineKey
            What it must be.

        Returns
        -------
        CachedEngine or None
        """
        exact = self._path(model, wanted)
        # Engines built ahead of time have names that cannot be known here.
        others = sorted(self.folder.glob(f"{_stem(model, wanted)}-*.json"))
        for sidecar in (exact.with_suffix(".json"), *others):
            found = self._read(sidecar, wanted)
            if found is not None:
                return found
        return None

    def keep(self, model: str, key: EngineKey, content: bytes, built: Built) -> Path:
        """Write an engine and its sidecar; both are whole or not there.

        Parameters
        ----------
        model : str
            Name of the model.
        key : EngineKey
            What it depends on.
        content : bytes
            The engine.
        built : Built
            What the library says about it.

        Returns
        -------
        Path
            Its file.

        Raises
        ------
        OSError
            The folder cannot be written to.
        """
        path = self._path(model, key)
        sidecar = _Sidecar(
            format=1,
            model=model,
            key=key,
            sha256=hashlib.sha256(content).hexdigest(),
            built=built,
        )
        # The sidecar comes last: without it, the engine is not there.
        path.with_suffix(".json").unlink(missing_ok=True)
        write_file(path, content)
        encoded = msgspec.json.format(msgspec.json.encode(sidecar), indent=2)
        write_file(path.with_suffix(".json"), encoded + b"\n")
        return path

    def discard(self, path: Path, why: str) -> None:
        """Delete an engine that is of no use."""
        log.warning("compiled engine %s is deleted: %s", path.name, why)
        for part in (path.with_suffix(".json"), path):
            try:
                part.unlink(missing_ok=True)
            except OSError as error:  # on Windows, while another process reads it
                log.warning("%s cannot be deleted: %s", part, error)

    def _read(self, sidecar: Path, wanted: EngineKey) -> CachedEngine | None:
        path = sidecar.with_suffix(".engine")
        try:
            said = msgspec.json.decode(sidecar.read_bytes(), type=_Sidecar)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            self.discard(path, f"what lies beside it cannot be read ({error})")
            return None
        if not said.key.serves(wanted):
            return None
        try:
            content = path.read_bytes()
        except OSError as error:
            self.discard(path, f"it cannot be read ({error})")
            return None
        if hashlib.sha256(content).hexdigest() != said.sha256:
            self.discard(path, "its bytes are not those that were written")
            return None
        return CachedEngine(path, content, said.built)

    def _path(self, model: str, key: EngineKey) -> Path:
        return self.folder / f"{_stem(model, key)}-{key.digest[:16]}.engine"


def _stem(model: str, key: EngineKey) -> str:
    height, width = key.shape[2:]
    return f"{model}-{height}x{width}-{key.precision}-{key.engine}"
