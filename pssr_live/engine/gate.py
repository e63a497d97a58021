"""The accuracy gate: no engine goes live before it agrees with fp32 on the processor.

The reference is OpenVINO in fp32, which itself must reproduce the package's test pair, made with
torch. Any other engine is then compared with it, at the size of the session's frames (a compiled
engine takes no other): first on the test pair's window, repeated or cut to that size, and then on
the first window that the session really has. See ``docs/decisions/0007-accuracy-gate.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import Check, Engine, EngineReport
from pssr_live.engine.compare import agreement_db, contrast_gain, drop_db, with_mean_of
from pssr_live.engine.normalise import Statistics, normalise
from pssr_live.engine.select import prepare_engine
from pssr_live.engine.verdicts import Subject, Verdict, read_verdict, write_verdict
from pssr_live.errors import EngineError
from pssr_live.frames import Frame
from pssr_live.model import ModelPackage

__all__ = ["FLOORS_DB", "Gate", "run_test_pair"]

Plane = NDArray[np.float32]

FLOORS_DB = {"fp32": 90.0, "fp16": 60.0, "bf16": 60.0, "int8": 45.0}
"""What an engine must reach on the test pair, by the precision that it was asked for."""

_VERSION = 1
"""Of the way to judge: verdicts of another version do not count."""
_REFERENCE = ("openvino", "fp32")
_LOWER_DB = 15.0
"""So much less is asked on the first window: one in the dark has the errors, but not the range."""
_MOST_DROP_DB = {"fp32": 0.1, "fp16": 0.1, "bf16": 0.1, "int8": 0.3}
"""How much further than fp32 it may be from the truth."""
_MOST_GAIN = 0.005
"""By how much it may change the contrast of the test pair, in any precision."""
_TEST_PAIR = "test pair"
_FIRST_WINDOW = "first window"


class Gate:
    """Judges engines for frames of one size; used by one thread at a time.

    Parameters
    ----------
    model : ModelPackage
        What they run.
    precision : str or None
        Arithmetic that they were asked for; None for fp32.
    height, width : int
        Size of the raw frames, pixels.
    """

    def __init__(self, model: ModelPackage, precision: str | None, height: int, width: int) -> None:
        self._model = model
        self._precision = precision or "fp32"
        self._size = height, width
        self._reference: tuple[Engine, EngineReport] | None = None

    def admit(self, engine: Engine, report: EngineReport) -> EngineReport:
        """Judge an engine that is ready by the test pair.

        Parameters
        ----------
        engine : Engine
            Prepared for frames of the gate's size.
        report : EngineReport
            What it says about itself.

        Returns
        -------
        EngineReport
            With what it passed.

        Raises
        ------
        EngineError
            It is refused, or there is no reference to compare it with.
        """
        if (report.engine, self._precision) == _REFERENCE:
            self.close()
            return self._admit_reference(engine, report)
        if self._reference is None:
            self._reference = prepare_engine(
                *_REFERENCE, self._model, *self._size, self._admit_reference
            )
        reference, itself = self._reference
        subject = self._subject(report, self._precision, self._size, itself.version)
        # An engine that was compiled just now is not the one that was judged earlier.
        check = None if report.cached is False else _passed_earlier(subject)
        if check is None:
            scored, statistics = _test_window(self._model, *self._size)
            case = _Case(
                _TEST_PAIR,
                raw=scored[0, self._model.manifest.centre],
                expected=reference.run(scored),
                truth=_truth(self._model, statistics, *self._size),
            )
            check = _judge(self._model, self._precision, report, _run(engine, scored, report), case)
            _keep(subject, check)
        return replace(report, checks=(check,))

    @property
    def waits(self) -> bool:
        """Whether the session's first window is still to be judged."""
        return self._reference is not None

    def run_first_window(
        self, engine: Engine, report: EngineReport, scored: Plane
    ) -> tuple[Plane, EngineReport]:
        """Let an engine restore the first window of a session, and judge it.

        Parameters
        ----------
        engine : Engine
            Admitted by `admit`.
        report : EngineReport
            The engine's.
        scored : ndarray, shape (1, window_length, H, W), float32
            The window, normalised.

        Returns
        -------
        prediction : ndarray, shape (scale·H, scale·W), float32
            What the engine made of it; valid until it runs again.
        report : EngineReport
            With what it passed.

        Raises
        ------
        EngineError
            It is refused.
        """
        case = _Case(
            _FIRST_WINDOW,
            raw=scored[0, self._model.manifest.centre],
            expected=self._held()[0].run(scored),
            truth=None,
        )
        prediction = _run(engine, scored, report)
        check = _judge(self._model, self._precision, report, prediction, case)
        return prediction, replace(report, checks=(*report.checks, check))

    def take_reference(self) -> tuple[Engine, EngineReport]:
        """Hand over the reference, to go on with it instead of an engine that was refused."""
        reference = self._held()
        self._reference = None
        return reference

    def close(self) -> None:
        """Let go of the reference. A second call does nothing."""
        if self._reference is not None:
            self._reference[0].close()
            self._reference = None

    def _held(self) -> tuple[Engine, EngineReport]:
        if self._reference is None:
            raise RuntimeError("there is no reference: no engine waits for its first window")
        return self._reference

    def _admit_reference(self, _engine: Engine, report: EngineReport) -> EngineReport:
        """Let fp32 reproduce the test pair at the pair's own size, once a version."""
        height, width = self._model.test_pair().window.shape[1:]
        subject = self._subject(report, "fp32", (height, width), report.version)
        check = _passed_earlier(subject)
        if check is None:
            engine, itself = prepare_engine(*_REFERENCE, self._model, height, width)
            try:
                check, _ = run_test_pair(self._model, "fp32", engine, itself)
            finally:
                engine.close()
            _keep(subject, check)
        return replace(report, checks=(check,))

    def _subject(
        self, report: EngineReport, asked: str, size: tuple[int, int], reference_version: str
    ) -> Subject:
        manifest = self._model.manifest
        files = {str(name): file for name, file in manifest.variants.items()}
        return Subject(
            gate=_VERSION,
            network=files.get(asked, manifest.network).sha256,
            reference=manifest.network.sha256,
            test_pair=manifest.test_pair.sha256,
            engine=report.engine,
            version=report.version,
            device=report.device,
            precision=report.precision,
            asked=asked,
            reference_version=reference_version,
            height=size[0],
            width=size[1],
            tiles=report.tiles,
        )


def run_test_pair(
    model: ModelPackage, precision: str, engine: Engine, report: EngineReport
) -> tuple[Check, float]:
    """Let an engine reproduce a package's test pair at the pair's own size.

    Parameters
    ----------
    model : ModelPackage
        What it runs.
    precision : str
        Arithmetic that it was asked for.
    engine : Engine
        Prepared for frames of the pair's size.
    report : EngineReport
        What it says about itself.

    Returns
    -------
    check : Check
        What it passed.
    worst : float
        Largest difference from the expected pixels, in the network's units: standard deviations
        of the window.

    Raises
    ------
    EngineError
        It is refused.
    """
    pair = model.test_pair()
    size = pair.window.shape[1:]
    scored, statistics = _test_window(model, *size)
    case = _Case(
        _TEST_PAIR,
        raw=scored[0, model.manifest.centre],
        expected=_in_units(pair.restored, statistics),
        truth=_truth(model, statistics, *size),
    )
    prediction = _run(engine, scored, report)
    check = _judge(model, precision, report, prediction, case)
    return check, float(np.abs(prediction - case.expected).max())


@dataclass(frozen=True, slots=True)
class _Case:
    """What an engine has to reproduce, in the network's units.

    Attributes
    ----------
    what : str
        As in `Check`.
    raw : ndarray, shape (H, W)
        The frame that is restored.
    expected : ndarray, shape (scale·H, scale·W)
        What fp32 makes of it.
    truth : ndarray or None
        What is known of the true image: the upper left part, or all of it.
    """

    what: str
    raw: Plane
    expected: Plane
    truth: Plane | None


def _run(engine: Engine, scored: Plane, report: EngineReport) -> Plane:
    try:
        return engine.run(scored)
    except Exception as error:  # a runtime's own exceptions share no base class
        raise _refusal(report, f"it broke: {str(error) or repr(error)}") from error


def _judge(
    model: ModelPackage, precision: str, report: EngineReport, prediction: Plane, case: _Case
) -> Check:
    """Compare, and refuse what is too far off."""
    floor = FLOORS_DB[precision] - (_LOWER_DB if case.what == _FIRST_WINDOW else 0)
    expected, drop, faults = case.expected, None, []
    if prediction.shape != expected.shape:
        raise _refusal(report, f"{case.what}: {prediction.shape} pixels, not {expected.shape}")
    if not np.isfinite(prediction).all():
        raise _refusal(report, f"{case.what}: some pixels are not finite")
    if model.manifest.keeps_mean:
        prediction = with_mean_of(case.raw, prediction)
        expected = with_mean_of(case.raw, expected)
    psnr = agreement_db(prediction, expected, case.raw)
    if not psnr >= floor:
        faults.append(f"{psnr:.1f} dB from fp32 where {floor:.0f} dB are needed")
    if case.truth is not None:
        part = np.s_[: case.truth.shape[0], : case.truth.shape[1]]
        drop = drop_db(prediction[part], expected[part], case.truth)
        if drop > _MOST_DROP_DB[precision]:
            faults.append(f"{drop:.2f} dB further from the truth than fp32")
    # A first window with next to no signal in it says nothing about contrast.
    if case.what == _TEST_PAIR:
        gain = contrast_gain(prediction, expected) - 1
        if abs(gain) > _MOST_GAIN:
            faults.append(f"contrast {100 * gain:+.1f} %")
    if faults:
        raise _refusal(report, f"{case.what}: {', '.join(faults)}")
    return Check(case.what, psnr, floor, drop)


def _refusal(report: EngineReport, why: str) -> EngineError:
    return EngineError(
        f"{report} does not restore as it should",
        why,
        "choose another --engine or --precision, or reinstall what it needs",
    )


def _test_window(
    model: ModelPackage, height: int, width: int
) -> tuple[NDArray[np.float32], Statistics]:
    """Bring the test pair's window to a size, mirrored at its ends as often as needed."""
    window = model.test_pair().window[:, :height, :width]
    missing = height - window.shape[1], width - window.shape[2]
    window = np.pad(window, ((0, 0), (0, missing[0]), (0, missing[1])), mode="symmetric")
    scored = np.empty((1, *window.shape), np.float32)
    frames = [Frame(plane, index, 0, 0) for index, plane in enumerate(window)]
    return scored, normalise(frames, scored, model.manifest.training_statistics)


def _truth(
    model: ModelPackage, statistics: Statistics, height: int, width: int
) -> NDArray[np.float32] | None:
    truth, scale = model.test_pair().truth, model.manifest.scale
    return (
        None if truth is None else _in_units(truth[: scale * height, : scale * width], statistics)
    )


def _in_units(pixels: Plane, statistics: Statistics) -> Plane:
    return ((pixels - statistics.mean) / statistics.std).astype(np.float32)


def _passed_earlier(subject: Subject) -> Check | None:
    verdict = read_verdict(subject)
    if verdict is None:
        return None
    psnr = math.inf if verdict.psnr_db is None else verdict.psnr_db
    floor = FLOORS_DB[subject.asked]
    if psnr < floor:
        return None
    return Check(_TEST_PAIR, psnr, floor, verdict.drop_db, cached=True)


def _keep(subject: Subject, check: Check) -> None:
    psnr = check.psnr_db if math.isfinite(check.psnr_db) else None
    write_verdict(Verdict(subject=subject, psnr_db=psnr, drop_db=check.drop_db))
