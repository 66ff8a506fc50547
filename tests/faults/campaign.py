"""A campaign: for each deed, stop it at calls to the file system in turn; look at what is there; do it again without a fault.

Each attempt is a fork of this process, which has imported the libraries and run nothing. What must hold after each: the output is as the
deed allows, the input is untouched, an error was one line and exit code 1, and doing it again succeeds and leaves nothing beside.
"""

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import click

from tests.faults.deeds import DEEDS, Deed, Stage
from tests.faults.disks import SIZES, change, mounted
from tests.faults.injection import ERRORS, Point, points_below, stop_until_traced, trace
from tests.faults.stops import Stops
from toolkit.cli import COMMANDS, main

NEVER = 0
TIMEOUT_S = 120
ROOMY = 1 << 26
WARM = (
    *(
        "exporters.checkpoint.checkpoint",
        "exporters.checkpoint.reference",
        "exporters.onnx.build",
        "exporters.onnx.graphs",
        "exporters.families.blip_caption",
        "exporters.gate.gate",
    ),
    *("runtimes.engines.ort.session", "toolkit.bench.runner", "toolkit.batch.output", "toolkit.distribute.distribute", "pyarrow.parquet"),
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one attempt ended."""

    status: int
    """Exit code, or less than 0 for a signal."""
    calls: int
    output: str


@dataclass
class Tally:
    """What was found."""

    stage: str
    """Digest of what the deeds read, which none may change."""
    points: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(deed, action, what was there afterwards) → how often."""
    calls: dict[str, int] = field(default_factory=dict)
    """Deed → how many there are to be stopped at."""
    faults: list[str] = field(default_factory=list)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(system call, error) → how often it was refused."""
    missed: int = 0
    """Attempts in which the call did not happen again."""

    def lines(self) -> list[str]:
        """Return the counts, a line for each deed and action."""
        rows: dict[tuple[str, str], list[str]] = {}
        for (deed, action, outcome), count in sorted(self.points.items()):
            rows.setdefault((deed, action), []).append(f"{count} {outcome}")
        totals = Counter[tuple[str, str]]()
        for (deed, action, _), count in self.points.items():
            totals[deed, action] += count
        calls = {key: self.calls.get(" ".join(key), self.calls[key[0]]) for key in rows}
        lines = [
            f"{deed:<8} {action:<6} {totals[deed, action]:>5} of {calls[deed, action]} calls: {', '.join(outcome)}"
            for (deed, action), outcome in rows.items()
        ]
        return [*lines, *self._refused_lines()]

    def _refused_lines(self) -> list[str]:
        by_call: dict[str, list[str]] = {}
        for (call, error), count in sorted(self.refused.items()):
            by_call.setdefault(call, []).append(f"{count} {error}")
        return [f"refused {call}: {', '.join(counts)}" for call, counts in by_call.items()] + (
            [f"{self.missed} refused calls did not happen again"] if self.missed else []
        )


def run_campaign(stage: Stage, names: list[str], actions: list[str], most: int | None, seed: int) -> Tally:
    """Try deeds.

    Args:
        stage: What they work on.
        names: Of deeds.
        actions: "kill", "fail" (each system call about the output, with each error of `ERRORS`), "full" (the disk, from a call on), "disk"
            (real small disks).
        most: Points for each deed and action; None: every call.
        seed: Draws the points.
    """
    for module in (*WARM, *(COMMANDS[name][0] for name in names)):
        import_module(module)
    tally, draw = Tally(stage=_digest(stage)), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in names:
            ended = _attempt(DEEDS[name], stage, _fresh(DEEDS[name], stage, scratch / name), NEVER, "kill")
            if ended.status != 0:
                tally.faults.append(f"{name}: undisturbed it ended with {ended.status}: {ended.output}")
                continue
            tally.calls[name] = ended.calls
            every = list(range(1, ended.calls + 1))
            for action in actions:
                if action == "disk":
                    _on_disks(tally, name, stage, scratch / name)
                    continue
                if action == "fail":
                    _refused(tally, name, stage, scratch / name, most, draw)
                    continue
                for at in every if most is None or most >= len(every) else sorted(draw.sample(every, most)):
                    _at_a_call(tally, name, stage, scratch / name, at, action)
    return tally


def _at_a_call(tally: Tally, name: str, stage: Stage, place: Path, at: int, action: str) -> None:
    _fresh(DEEDS[name], stage, place)
    ended = _attempt(DEEDS[name], stage, place, at, action)
    _judge(tally, name, stage, place, ended, action, f"call {at}")


def _refused(tally: Tally, name: str, stage: Stage, place: Path, most: int | None, draw: random.Random) -> None:
    """Refuse each system call about the output with each error."""
    log = place.parent / "trace"
    _attempt(DEEDS[name], stage, _fresh(DEEDS[name], stage, place), NEVER, "kill", log=log)
    points = [replace(point, error=error) for point in points_below(log, place) for error in ERRORS]
    tally.calls[f"{name} fail"] = len(points)
    for point in points if most is None or most >= len(points) else draw.sample(points, most):
        _fresh(DEEDS[name], stage, place)
        ended = _attempt(DEEDS[name], stage, place, NEVER, "kill", log=log, point=point)
        if "(INJECTED)" not in log.read_text(encoding="utf-8", errors="replace"):
            tally.missed += 1
        tally.refused[point.call, point.error] += 1
        _judge(tally, name, stage, place, ended, "fail", f"{point.call} {point.number} {point.error}")


def _on_disks(tally: Tally, name: str, stage: Stage, place: Path) -> None:
    """On disks with more and more room, and on one that is read-only."""
    shutil.rmtree(place)
    for room in (*SIZES, None):
        with mounted(place, ROOMY):
            DEEDS[name].prepare(stage, place)
            disk = os.statvfs(place)
            change(place, "ro" if room is None else f"size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + room}")
            ended = _attempt(DEEDS[name], stage, place, NEVER, "disk")
            _judge(tally, name, stage, place, ended, "disk", f"{room} bytes of room", lambda: change(place, f"rw,size={ROOMY}"))


def _judge(
    tally: Tally, name: str, stage: Stage, place: Path, ended: Ended, action: str, what: str, cure: Callable[[], None] = lambda: None
) -> None:
    """Look at what an attempt left, do it again, and look at that."""
    deed, faults = DEEDS[name], []
    outcome = _found(deed, stage, place)
    tally.points[name, action, outcome] += 1
    if outcome not in deed.allowed:
        faults.append(f"found {outcome}")
    if action == "kill" and ended.status != -signal.SIGKILL:
        faults.append(f"was to be killed and ended with {ended.status}")
    if action != "kill" and (ended.status not in (0, 1) or "Traceback" in ended.output):
        faults.append(f"ended with {ended.status}: {ended.output[-1500:]}")
    if action != "kill" and ended.status == 1 and not any(line.startswith("Error: ") for line in ended.output.splitlines()):
        faults.append(f"failed and did not say why: {ended.output!r}")
    cure()
    if not (outcome == "new" and name == "unpack"):  # a second time is refused
        again = _attempt(deed, stage, place, NEVER, "kill")
        left = {file.name for file in place.iterdir()}
        if (again.status, _found(deed, stage, place), left) != (0, "new", deed.left):
            faults.append(f"again: {again.status}, {_found(deed, stage, place)}, {sorted(left)}: {again.output[-1500:]}")
    if _digest(stage) != tally.stage:
        faults.append("the input was changed")
    tally.faults += [f"{name}, {what}, {action}: {fault}" for fault in faults]


def _found(deed: Deed, stage: Stage, place: Path) -> str:
    try:
        return deed.look(stage, place)
    except Exception as error:  # whatever it is, what is there cannot be read
        return repr(error)


def _fresh(deed: Deed, stage: Stage, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    deed.prepare(stage, place)
    return place


def _attempt(deed: Deed, stage: Stage, place: Path, at: int, action: str, *, log: Path | None = None, point: Point | None = None) -> Ended:
    """Run the command in a fork, disturbed at a call; with a log, traced by strace, which refuses the call of a point."""
    (output, write_output), (counted, count) = os.pipe(), os.pipe()  # pipes: a full disk does not concern them
    child = os.fork()
    if child == 0:
        if log is not None:
            stop_until_traced()
        _run(deed.arguments(stage, place), Stops(place.parent, at, action), write_output, count)
    os.close(write_output)
    os.close(count)
    tracer = None if log is None else trace(child, log, point)
    status = _wait(child)
    if tracer is not None:
        tracer.communicate(timeout=TIMEOUT_S)
    with os.fdopen(output, errors="replace") as words, os.fdopen(counted) as number:
        return Ended(status=status, calls=int(number.read() or 0), output=words.read())


def _run(arguments: list[str], stops: Stops, write_output: int, count: int) -> None:
    """Be the command; never return."""
    code = 70
    try:
        os.dup2(write_output, 1)
        os.dup2(write_output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        stops.install()
        try:
            main(arguments, standalone_mode=False)
            code = 0
        except click.ClickException as error:
            error.show()
            code = 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(count, str(stops.calls).encode())
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGABRT)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _digest(stage: Stage) -> str:
    """Of every file that the deeds read."""
    digest = hashlib.sha256()
    for folder in (stage.checkpoint, stage.artifact, stage.images, stage.packages, stage.shards):
        for file in sorted(folder.rglob("*")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()
