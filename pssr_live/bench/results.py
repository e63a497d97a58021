"""What the bench measures, as it goes into the JSON."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "BenchReport",
    "DaemonResult",
    "EngineTiming",
    "LatencyResult",
    "Machine",
    "MemoryResult",
    "PaperNetwork",
    "Percentiles",
    "Refused",
    "Round",
    "SizeCost",
    "SizeScaling",
    "StartUp",
]


class Percentiles(Struct, frozen=True):
    """Median and 99th percentile, ms."""

    p50: float
    p99: float


class Machine(Struct, frozen=True, kw_only=True):
    """Where and when it was measured.

    Attributes
    ----------
    processor, system, python, version : str
        The processor as OpenVINO names it, the system, Python, and pssr-live.
    cpus : int
        Logical processors.
    load : float or None
        Processes that wanted a processor over the minute before the bench began; None where the
        system does not count them (Windows).
    started : str
        Calendar time.
    """

    processor: str
    system: str
    python: str
    version: str
    cpus: int
    load: float | None
    started: str


class EngineTiming(Struct, frozen=True, kw_only=True):
    """One engine in one precision on its own, on frames of the neuron preset.

    Attributes
    ----------
    engine, precision, device, version : str
        As read back from the running engine.
    psnr_db : float or None
        Least agreement with fp32 that the accuracy gate found, dB; None if the pixels are equal.
    tiles : int
        Parts that a frame is restored in.
    frame_ms : Percentiles
        Raw window in memory → restored frame in memory, with normalisation and back.
    network_ms : Percentiles
        The network alone.
    network_least_ms : float
        The network alone, at its least disturbed.
    frames : int
        How many were timed.
    frames_per_s : float
        From the median of ``frame_ms``.
    output_megapixels_per_s : float
        Restored pixels at that rate.
    """

    engine: str
    precision: str
    device: str
    version: str
    psnr_db: float | None
    tiles: int
    frame_ms: Percentiles
    network_ms: Percentiles
    network_least_ms: float
    frames: int
    frames_per_s: float
    output_megapixels_per_s: float


class Refused(Struct, frozen=True):
    """An engine and precision that do not run here, and why."""

    engine: str
    precision: str
    why: str


class Round(Struct, frozen=True):
    """One round: bare engine, whole daemon, bare engine again; frames per second.

    Attributes
    ----------
    bare_before, daemon, bare_after : float
        Frames restored per second.
    """

    bare_before: float
    daemon: float
    bare_after: float

    @property
    def ratio(self) -> float:
        """Daemon over the mean of the two bare rates around it."""
        return 2 * self.daemon / (self.bare_before + self.bare_after)


class DaemonResult(Struct, frozen=True, kw_only=True):
    """The whole daemon when frames come faster than the engine works.

    Attributes
    ----------
    engine : str
        What ran.
    rounds : list of Round
        In order.
    ratio : float
        Median over the rounds.
    seen_by_viewer : int
        Restored frames that the viewer's process took, in all rounds.
    """

    engine: str
    rounds: list[Round]
    ratio: float
    seen_by_viewer: int


class LatencyResult(Struct, frozen=True, kw_only=True):
    """The whole daemon at the neuron preset's pace.

    Attributes
    ----------
    interval_ms : float
        Time from frame to frame.
    frames, skipped, lost : int
        Received, skipped live, and lost at the source.
    engine_ms : Percentiles
        The engine's time within the daemon.
    total_ms : Percentiles
        Last needed frame in → restored frame published.
    added_ms : Percentiles
        The same less the engine's time, frame by frame.
    added_to_ready_ms : Percentiles
        As ``added_ms``, but only until the frame is restored, from ``log.jsonl``.
    seen_after_ms : Percentiles
        Published → in the hands of a viewer's process.
    """

    interval_ms: float
    frames: int
    skipped: int
    lost: int
    engine_ms: Percentiles
    total_ms: Percentiles
    added_ms: Percentiles
    added_to_ready_ms: Percentiles
    seen_after_ms: Percentiles


class SizeCost(Struct, frozen=True):
    """Least time for one restored frame of ``size`` × ``size`` raw pixels, ms."""

    size: int
    frame_ms: float


class SizeScaling(Struct, frozen=True):
    """Cost against pixels.

    Attributes
    ----------
    costs : list of SizeCost
        Smallest first.
    slope : float
        Of log time against log pixels; 1 is linear.
    """

    costs: list[SizeCost]
    slope: float


class MemoryResult(Struct, frozen=True, kw_only=True):
    """Resident memory of a daemon in a process of its own.

    Attributes
    ----------
    size : int
        Height and width of the frames, pixels.
    warm_up, frames : int
        Frames before, and frames over which the drift is taken.
    skipped : int
        Frames that live skipped in all.
    start_mb, end_mb : float
        Medians over the first and the last tenth of those frames, 10⁶ bytes.
    samples : list of tuple of float
        (frames received, MB) all along.
    """

    size: int
    warm_up: int
    frames: int
    skipped: int
    start_mb: float
    end_mb: float
    samples: list[tuple[int, float]]

    @property
    def drift(self) -> float:
        """Growth as a share of the start."""
        return self.end_mb / self.start_mb - 1


class PaperNetwork(Struct, frozen=True, kw_only=True):
    """The published network, for comparison: one of its tiles is timed.

    Attributes
    ----------
    engine, precision, device, version : str
        As read back from the running engine.
    tile : int
        Height and width of a tile, raw pixels.
    tile_ms : list of float
        Time of the network alone for one tile, each time it was run.
    gmacs : float
        10⁹ multiply-accumulates of one tile.
    tiles : int
        That a frame of the neuron preset needs, with the published code's overlap.
    """

    engine: str
    precision: str
    device: str
    version: str
    tile: int
    tile_ms: list[float]
    gmacs: float
    tiles: int

    @property
    def frame_s(self) -> float:
        """Extrapolated time for a frame: that of all tiles, without cutting and joining them."""
        return self.tiles * min(self.tile_ms) / 1e3


class StartUp(Struct, frozen=True):
    """Median wall time of a fresh process, the interpreter's own start included, s."""

    import_s: float
    help_s: float


class BenchReport(Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes
    ----------
    machine : Machine
        Where and when.
    model, model_sha256 : str
        What ran.
    size : int
        Height and width of the neuron preset's frames, pixels.
    gmacs : float
        10⁹ multiply-accumulates of the network for one frame of that size.
    peak_gflops : dict of str to float
        Measured matrix-multiply peak by precision, 10⁹ operations per second.
    engines : list of EngineTiming
    refused : list of Refused
    daemon : DaemonResult
    latency : LatencyResult
    scaling : SizeScaling
    memory : MemoryResult or None
        None in a quick bench, or without psutil.
    start_up : StartUp
    paper : list of PaperNetwork
        Empty unless it was asked for.
    """

    version: int = 1
    machine: Machine
    model: str
    model_sha256: str
    size: int
    gmacs: float
    peak_gflops: dict[str, float]
    engines: list[EngineTiming]
    refused: list[Refused]
    daemon: DaemonResult
    latency: LatencyResult
    scaling: SizeScaling
    memory: MemoryResult | None
    start_up: StartUp
    paper: list[PaperNetwork] = []

    def share_of_peak(self, timing: EngineTiming) -> float | None:
        """Arithmetic rate of a network over the peak, both at their least disturbed.

        Parameters
        ----------
        timing : EngineTiming
            One of ``engines``.

        Returns
        -------
        float or None
            None where the peak in that precision was not measured, or is not that of the device.
        """
        peak = self.peak_gflops.get(timing.precision)
        on_processor = timing.device == self.machine.processor or timing.device.startswith("CPU")
        if peak is None or not on_processor:
            return None
        return 2e3 * self.gmacs / timing.network_least_ms / peak
