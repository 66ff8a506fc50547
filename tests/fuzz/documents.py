"""Damaged and forged records and files of peers: each must be a named error, or give all tables.

Reading is not enough: a value that is accepted by the reader and breaks a table later also gives a traceback.
"""

import json
import random
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ToolkitError
from tests.fuzz.forge import edit
from tests.fuzz.mutate import damaged
from tests.fuzz.tally import Tally
from toolkit.bench.peers.catalogue import PEERS
from toolkit.bench.peers.folder import PEER_NAME, PeerFolder, read_folder
from toolkit.records.record_file import read_records
from toolkit.tables.render import RENDERERS

MAX_GROWN_KB = 200_000
PROMISE = "a named error, or every table; never over 200 MB"


def records(files: Sequence[Path], count: int, seed: int, folder: Path) -> Tally:
    """Read record files with one damaged or forged line, and render those that are accepted with every renderer."""
    path = folder / "records.jsonl"
    seeds = [file.read_bytes().splitlines(keepends=True) for file in files]

    def attempt() -> None:
        parsed = read_records(path)
        for render in RENDERERS.values():
            render(parsed).encode()

    return _tried(Tally("damaged and forged records", PROMISE), seeds, count, seed, path, attempt)


def peers(artifact: Path, count: int, seed: int, folder: Path) -> Tally:
    """Read damaged and forged files peer.json."""
    written = PeerFolder(name=next(iter(PEERS)).name, checkpoint_sha256="0" * 64, manifest=open_artifact(artifact).manifest)
    seeds = [[json_dataclass.canonical_json(json_dataclass.dump(written))]]
    tally = Tally("damaged and forged peer.json", "a named error, or it is read; never over 200 MB")
    return _tried(tally, seeds, count, seed, folder / PEER_NAME, lambda: read_folder(folder))


def _tried(tally: Tally, seeds: Sequence[Sequence[bytes]], count: int, seed: int, path: Path, attempt: Callable[[], object]) -> Tally:
    """Change one line of a seed at a time, write it to `path`, and count the result of `attempt`."""
    chance = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        lines = list(seeds[number % len(seeds)])
        at = chance.randrange(len(lines))
        if chance.random() < 0.1:
            how, lines[at] = damaged(lines[at], chance)
        else:
            document = json.loads(lines[at])
            how = edit(document, chance)
            lines[at] = json.dumps(document).encode() + b"\n"
        path.write_bytes(b"".join(lines))
        case = f"{path.name} {number}, seed {seed}: {how}"
        try:
            attempt()
        except ToolkitError as error:
            tally.note(error.code, None if str(error).isprintable() else f"{case}: {error!r}")
        except Exception as error:
            tally.note("another exception", f"{case}: {error!r}")
        else:
            tally.note("read")
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MAX_GROWN_KB:
        tally.broken.append(f"the process grew by {grown} kB")
    return tally
