"""Verdicts that are kept: which engine has passed which model's test pair, at which size.

One small JSON file a verdict, in the cache folder. Only passes are kept: what made an engine fail
may have been repaired in a way that its name and version do not show, such as a new driver.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from pssr_live.engine.cache import cache_folder

__all__ = ["Subject", "Verdict", "read_verdict", "write_verdict"]

log = logging.getLogger(__name__)


class Subject(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was judged; if any of it differs, it is judged anew.

    Attributes
    ----------
    gate : int
        Version of the way to judge.
    network, reference, test_pair : str
        sha256 of the network file that runs, of the one in fp32, and of the test pair.
    engine, version, device, precision : str
        What runs, in the runtime's own words.
    asked : str
        Precision that it was asked for.
    reference_version : str
        Version of the runtime that it was compared with.
    height, width : int
        Size of the raw frames, pixels.
    tiles : int
        Parts that a frame is restored in.
    """

    gate: int
    network: str
    reference: str
    test_pair: str
    engine: str
    version: str
    device: str
    precision: str
    asked: str
    reference_version: str
    height: int
    width: int
    tiles: int


class Verdict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A comparison that was passed.

    Attributes
    ----------
    subject : Subject
        What was judged.
    psnr_db : float or None
        As of `Check`; None for infinity, which JSON does not have.
    drop_db : float or None
        As of `Check`.
    """

    subject: Subject
    psnr_db: float | None
    drop_db: float | None


def read_verdict(subject: Subject) -> Verdict | None:
    """Look a verdict up.

    Parameters
    ----------
    subject : Subject
        What is to be judged.

    Returns
    -------
    Verdict or None
        None if there is none; a damaged file counts as none.
    """
    path = _path(subject)
    try:
        verdict = msgspec.json.decode(path.read_bytes(), type=Verdict)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.info("%s cannot be used and is made anew: %s", path, error)
        return None
    return verdict if verdict.subject == subject else None


def write_verdict(verdict: Verdict) -> None:
    """Keep a verdict; where the disk does not take it, the engine is judged again next time.

    Parameters
    ----------
    verdict : Verdict
        Of an engine that passed.
    """
    path = _path(verdict.subject)
    temporary = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n")
        temporary.replace(path)
    except OSError as error:
        log.info("%s cannot be written: %s", path, error)


def _path(subject: Subject) -> Path:
    key = hashlib.sha256(msgspec.json.encode(subject)).hexdigest()
    return cache_folder() / "verdicts" / f"{key}.json"
