"""Run each writing command with one fault at a time: at every call to the file system, kill it or let the call fail.

Each attempt is a fork of this process, which has imported the libraries and run nothing. After each attempt, the output must be in a state
that the command allows, the inputs must be unchanged, and an error must be one line with exit code 1. The command is then repeated
without a fault. It must succeed and leave no other files.
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

from tests.faults.commands import WRITERS, Inputs, Writer
from tests.faults.disks import SIZES, change, mounted
from tests.faults.injection import ERRORS, Point, points_below, stop_until_traced, trace
from tests.faults.stops import Stops
from toolkit.cli import COMMANDS, main

NEVER = 0
MOMENTS = 100
"""Signals for each command."""
FIRST_SIGNAL_S = 0.05
"""Before that, the fork may not have called the command."""
ENDS = {"fail": (0, 1), "full": (0, 1), "disk": (0, 1), "signal": (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)}
"""Action → exit codes that it allows."""
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
    """The results of a campaign."""

    inputs: str
    """Digest of the inputs, which no command may change."""
    points: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(command, action, state of the output afterwards) → number of attempts."""
    calls: dict[str, int] = field(default_factory=dict)
    """Command → number of its calls to the file system."""
    faults: list[str] = field(default_factory=list)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(system call, error) → how often it was refused."""
    missed: int = 0
    """Attempts in which the call did not happen again."""

    def lines(self) -> list[str]:
        """Return the counts, one line for each command and action."""
        rows: dict[tuple[str, str], list[str]] = {}
        for (command, action, outcome), count in sorted(self.points.items()):
            rows.setdefault((command, action), []).append(f"{count} {outcome}")
        totals = Counter[tuple[str, str]]()
        for (command, action, _), count in self.points.items():
            totals[command, action] += count
        calls = {key: self.calls.get(" ".join(key), self.calls[key[0]]) for key in rows}
        lines = [
            f"{command:<10} {action:<6} {totals[command, action]:>5} points, {calls[command, action]} calls: {', '.join(outcome)}"
            for (command, action), outcome in rows.items()
        ]
        return [*lines, *self._refused_lines()]

    def _refused_lines(self) -> list[str]:
        by_call: dict[str, list[str]] = {}
        for (call, error), count in sorted(self.refused.items()):
            by_call.setdefault(call, []).append(f"{count} {error}")
        return [f"refused {call}: {', '.join(counts)}" for call, counts in by_call.items()] + (
            [f"{self.missed} refused calls did not happen again"] if self.missed else []
        )


def run_campaign(inputs: Inputs, names: list[str], actions: list[str], most: int | None, seed: int) -> Tally:
    """Run commands with faults, and return the results.

    Args:
        inputs: What the commands read.
        names: Names of `WRITERS`.
        actions: "kill", "fail" (each system call about the inputs or the output, with each error of `ERRORS`), "full" (the disk, from a
            call on), "disk" (disks that are too small or read-only), "signal" (SIGINT or SIGTERM at any moment).
        most: Points for each command and action; None: every call.
        seed: Seed of the choice of points.
    """
    for module in (*WARM, *(COMMANDS[name][0] for name in names)):
        import_module(module)
    tally, draw = Tally(inputs=_digest(inputs)), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in names:
            ended = _attempt(WRITERS[name], inputs, _fresh(WRITERS[name], inputs, scratch / name), NEVER, "kill")
            if ended.status != 0:
                tally.faults.append(f"{name}: undisturbed it ended with {ended.status}: {ended.output}")
                continue
            tally.calls[name] = ended.calls
            every = list(range(1, ended.calls + 1))
            for action in actions:
                if action == "disk":
                    _on_disks(tally, name, inputs, scratch / name)
                    continue
                if action == "fail":
                    _refused(tally, name, inputs, scratch / name, most, draw)
                    continue
                if action == "signal":
                    _signalled(tally, name, inputs, scratch / name, most or MOMENTS, draw)
                    continue
                for at in every if most is None or most >= len(every) else sorted(draw.sample(every, most)):
                    _at_a_call(tally, name, inputs, scratch / name, at, action)
    return tally


def _at_a_call(tally: Tally, name: str, inputs: Inputs, target: Path, at: int, action: str) -> None:
    _fresh(WRITERS[name], inputs, target)
    ended = _attempt(WRITERS[name], inputs, target, at, action)
    _judge(tally, name, inputs, target, ended, action, f"call {at}")


def _refused(tally: Tally, name: str, inputs: Inputs, target: Path, most: int | None, draw: random.Random) -> None:
    """Refuse each system call about the inputs or the output with each error."""
    log = target.parent / "trace"
    _attempt(WRITERS[name], inputs, _fresh(WRITERS[name], inputs, target), NEVER, "kill", log=log)
    points = [replace(point, error=error) for point in points_below(log, target, inputs.checkpoint.parents[1]) for error in ERRORS]
    tally.calls[f"{name} fail"] = len(points)
    for point in points if most is None or most >= len(points) else draw.sample(points, most):
        _fresh(WRITERS[name], inputs, target)
        ended = _attempt(WRITERS[name], inputs, target, NEVER, "kill", log=log, point=point)
        if "(INJECTED)" not in log.read_text(encoding="utf-8", errors="replace"):
            tally.missed += 1
        tally.refused[point.call, point.error] += 1
        _judge(tally, name, inputs, target, ended, "fail", f"{point.call} {point.number} {point.error}")


def _signalled(tally: Tally, name: str, inputs: Inputs, target: Path, moments: int, draw: random.Random) -> None:
    """Send a signal that ends the command at moments of its run."""
    started = time.monotonic()
    _attempt(WRITERS[name], inputs, _fresh(WRITERS[name], inputs, target), NEVER, "signal")
    seconds = time.monotonic() - started
    for _ in range(moments):
        moment, number = draw.uniform(FIRST_SIGNAL_S, seconds), draw.choice((signal.SIGINT, signal.SIGTERM))
        _fresh(WRITERS[name], inputs, target)
        ended = _attempt(WRITERS[name], inputs, target, NEVER, "signal", interrupt=(moment, number))
        _judge(tally, name, inputs, target, ended, "signal", f"{number.name} after {moment:.3f} s")


def _on_disks(tally: Tally, name: str, inputs: Inputs, target: Path) -> None:
    """Run a command on disks of growing size, and on one that is read-only."""
    shutil.rmtree(target)
    for room in (*SIZES, None):
        with mounted(target, ROOMY):
            WRITERS[name].prepare(inputs, target)
            disk = os.statvfs(target)
            change(target, "ro" if room is None else f"size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + room}")
            ended = _attempt(WRITERS[name], inputs, target, NEVER, "disk")
            _judge(tally, name, inputs, target, ended, "disk", f"{room} bytes of room", lambda: change(target, f"rw,size={ROOMY}"))


def _judge(
    tally: Tally, name: str, inputs: Inputs, target: Path, ended: Ended, action: str, what: str, cure: Callable[[], None] = lambda: None
) -> None:
    """Check the output of an attempt, repeat the command without a fault, and check again."""
    command, faults = WRITERS[name], []
    outcome = _found(command, inputs, target)
    tally.points[name, action, outcome] += 1
    if outcome not in command.allowed:
        faults.append(f"found {outcome}")
    if action == "kill" and ended.status != -signal.SIGKILL:
        faults.append(f"was not killed and ended with {ended.status}")
    if action != "kill" and (ended.status not in ENDS[action] or "Traceback" in ended.output):
        faults.append(f"ended with {ended.status}: {ended.output[-1500:]}")
    if action != "kill" and ended.status == 1 and not any(line.startswith("Error: ") for line in ended.output.splitlines()):
        faults.append(f"failed without an error line: {ended.output!r}")
    cure()
    if not (outcome == "new" and name == "unpack"):  # a second time is refused
        again = _attempt(command, inputs, target, NEVER, "kill")
        left = {file.name for file in target.iterdir()}
        if (again.status, _found(command, inputs, target), left) != (0, "new", command.left):
            faults.append(f"again: {again.status}, {_found(command, inputs, target)}, {sorted(left)}: {again.output[-1500:]}")
    if _digest(inputs) != tally.inputs:
        faults.append("the input was changed")
    tally.faults += [f"{name}, {what}, {action}: {fault}" for fault in faults]


def _found(command: Writer, inputs: Inputs, target: Path) -> str:
    try:
        return command.look(inputs, target)
    except Exception as error:  # any error means that the output cannot be read
        return repr(error)


def _fresh(command: Writer, inputs: Inputs, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command.prepare(inputs, target)
    return target


def _attempt(
    command: Writer,
    inputs: Inputs,
    target: Path,
    at: int,
    action: str,
    *,
    log: Path | None = None,
    point: Point | None = None,
    interrupt: tuple[float, signal.Signals] | None = None,
) -> Ended:
    """Run a command in a fork with a fault at one of its calls. With a log, strace traces it and lets the call of a point fail.

    `interrupt` is a signal, and the seconds after which it is sent.
    """
    (output, write_output), (counted, count) = os.pipe(), os.pipe()  # pipes, because they work on a full disk
    child = os.fork()
    if child == 0:
        if log is not None:
            stop_until_traced()
        _run(command.arguments(inputs, target), Stops(target.parent, at, action), write_output, count)
    os.close(write_output)
    os.close(count)
    tracer = None if log is None else trace(child, log, point)
    status = _wait(child, interrupt)
    if tracer is not None:
        tracer.communicate(timeout=TIMEOUT_S)
    with os.fdopen(output, errors="replace") as words, os.fdopen(counted) as number:
        return Ended(status=status, calls=int(number.read() or 0), output=words.read())


def _run(arguments: list[str], stops: Stops, write_output: int, count: int) -> None:
    """Run the command in this fork, and end the process."""
    code = 70
    try:
        os.dup2(write_output, 1)
        os.dup2(write_output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        stops.install()
        try:
            code = main(arguments, standalone_mode=False) or 0
        except click.ClickException as error:
            error.show()
            code = 1
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(count, str(stops.calls).encode())
    finally:
        os._exit(code)


def _wait(child: int, interrupt: tuple[float, signal.Signals] | None) -> int:
    started = time.monotonic()
    while (now := time.monotonic()) < started + TIMEOUT_S:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if interrupt is not None and now >= started + interrupt[0]:
            os.kill(child, interrupt[1])
            interrupt = None
        time.sleep(0.002)
    os.kill(child, signal.SIGABRT)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _digest(inputs: Inputs) -> str:
    """Return the digest of every file that the commands read."""
    digest = hashlib.sha256()
    for folder in (inputs.checkpoint, inputs.artifact, inputs.images, inputs.packages, inputs.shards):
        for file in sorted(folder.rglob("*")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()
