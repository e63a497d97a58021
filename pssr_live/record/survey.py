"""Looks through the stacks of a run that has died: which planes are there, and which were logged.

Only reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pssr_live.errors import StorageError
from pssr_live.record.mend_log import Logged
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.run_folder import RunFolder
from pssr_live.record.stored import Slot, StoredStack

__all__ = ["RawSurvey", "stored_stack", "survey_raw", "survey_restored"]

Looked = Callable[[], object]
"""Called for each plane that was looked at."""


@dataclass
class RawSurvey:
    """What there is to keep of the raw stack and of the ground truth.

    Attributes
    ----------
    raw, truth : dict of int to Slot
        Where each plane is, by its number; all have an ``info``.
    unlogged : list of (PlaneInfo, int)
        Frames that are whole in the file but have no line in the log, with their CRC-32; they are
        the last ones.
    damage : list of str
        What was acknowledged and is lost; empty unless more went wrong than a death of the
        process.
    """

    raw: dict[int, Slot] = field(default_factory=dict)
    truth: dict[int, Slot] = field(default_factory=dict)
    unlogged: list[tuple[PlaneInfo, int]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @property
    def infos(self) -> list[PlaneInfo]:
        """What is known of each plane."""
        return [slot.info for _, slot in sorted(self.raw.items()) if slot.info is not None]


def stored_stack(path: Path) -> StoredStack | None:
    """Open a stack to look at; None if there is none, or a death came before it could be one."""
    try:
        return StoredStack(path) if path.exists() else None
    except ValueError:
        return None


def survey_raw(folder: RunFolder, logged: Logged, *, truth: bool, looked: Looked) -> RawSurvey:
    """Find the raw frames of a run.

    Parameters
    ----------
    folder : RunFolder
        The run.
    logged : Logged
        What its log says.
    truth : bool
        Every frame came with ground truth, and is kept only with it.
    looked : callable
        Called for each plane.

    Returns
    -------
    RawSurvey

    Raises
    ------
    StorageError
        The stack cannot be read.
    """
    survey = RawSurvey()
    stored = stored_stack(folder.raw)
    if stored is None:
        if logged.frames:
            raise StorageError(
                f"{folder.raw} cannot be recovered",
                "it is missing, or its beginning is damaged",
                "take it from a backup, if there is one",
            )
        return survey
    with stored:
        _find_raw(stored, logged, survey, looked)
    if truth:
        _find_truth(folder.truth, logged, survey)
    gone = len(logged.frames) - len(survey.raw)
    if gone > 0:
        survey.damage.append(f"{gone} acknowledged frames are not in {folder.raw.name}")
    return survey


def survey_restored(
    folder: RunFolder, logged: Logged, raw: RawSurvey, looked: Looked
) -> dict[int, Slot]:
    """Find the restored planes that are as they were logged, linked or not; as `survey_raw`."""
    indices = [info.index for info in raw.infos]
    found: dict[int, Slot] = {}
    stored = stored_stack(folder.restored)
    if stored is None:
        return found
    with stored:
        for number in range(len(stored)):
            slot = stored.slot(number)
            if slot.info is None:
                continue
            looked()
            position = bisect_left(indices, slot.info.index)
            event = logged.restored.get(position)
            if position == len(indices) or indices[position] != slot.info.index or event is None:
                continue
            if event.index == slot.info.index and event.crc32 == stored.crc32(slot):
                found[position] = slot
    return found


def _find_raw(stored: StoredStack, logged: Logged, survey: RawSurvey, looked: Looked) -> None:
    whole = 0
    changed: list[int] = []
    last_index = -1
    for number in range(len(stored)):
        slot = stored.slot(number)
        info = slot.info
        if number < len(logged.frames):
            frame = logged.frames[number]
            as_logged = stored.crc32(slot) == frame.crc32
            if not as_logged:
                changed.append(number)
            if info is None or info.index != frame.index:
                info = PlaneInfo(frame.index, frame.t_source_ns)
                slot = replace(slot, info=info, whole=False)
            looked()
            if slot.whole or as_logged:
                whole = number + 1
        else:
            if info is None or info.index <= last_index:
                break
            survey.unlogged.append((info, stored.crc32(slot)))
            whole = number + 1
        survey.raw[number] = slot
        last_index = info.index
    # What lies behind the last good plane was torn off; a bad one before that is kept as it is.
    for number in range(whole, len(survey.raw)):
        del survey.raw[number]
    bad = sum(number < whole for number in changed)
    if bad:
        survey.damage.append(f"{bad} planes of {stored.path.name} are not as they were logged")


def _find_truth(path: Path, logged: Logged, survey: RawSurvey) -> None:
    stored = stored_stack(path)
    if stored is not None:
        with stored:
            for number in range(min(len(stored), len(survey.raw))):
                slot, info = stored.slot(number), survey.raw[number].info
                if slot.info is None or info is None or slot.info.index != info.index:
                    if number >= len(logged.frames):
                        break
                    slot = replace(slot, info=info, whole=False)
                survey.truth[number] = slot
    # A frame is acknowledged when its truth is recorded too.
    for number in range(max(len(survey.truth), len(logged.frames)), len(survey.raw)):
        del survey.raw[number]
    survey.unlogged = survey.unlogged[: max(0, len(survey.raw) - len(logged.frames))]
    if len(survey.truth) < len(survey.raw):
        lacking = len(survey.raw) - len(survey.truth)
        survey.damage.append(f"{lacking} acknowledged planes are not in {path.name}")
