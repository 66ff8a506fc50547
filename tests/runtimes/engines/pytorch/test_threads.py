"""torch's process-wide settings: a session uses its own, and the program that it is part of keeps its own."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

import runtimes
from runtimes.engines.pytorch.blip import Blip
from runtimes.engines.pytorch.threads import CpuThreads
from tests.paths import ROOT


@pytest.fixture
def seen(monkeypatch):
    """Threads that torch has whenever a model runs."""
    counts = []
    for name in ("encode", "decode"):
        run = getattr(Blip, name)
        monkeypatch.setattr(Blip, name, lambda *inputs, run=run: (counts.append(torch.get_num_threads()), run(*inputs))[1])
    return counts


def test_two_captioners_use_and_report_their_own(tiny_artifacts, drawn_images, seen):
    image, own = drawn_images[0].path, torch.get_num_threads()
    captioners = {threads: runtimes.load(tiny_artifacts["pytorch-fp32"], threads=threads) for threads in (1, 3, 2)}
    for threads, captioner in captioners.items():
        captioner.caption([image], num_beams=2)
        assert set(seen) == {threads}
        assert captioner.session.info().threads == threads
        assert torch.get_num_threads() == own
        seen.clear()


def test_bodies_that_overlap_leave_what_was_there():
    """Whoever ends first, and also for threads that use torch for the first time while a body runs."""
    own, inside = torch.get_num_threads(), Barrier(3)

    def body(count):
        with CpuThreads(count):
            inside.wait()
            found = torch.get_num_threads()
            inside.wait()
        return found, torch.get_num_threads()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(body, (1, 2, 5))) == [(1, own), (2, own), (5, own)]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == own


def test_loading_int8_leaves_the_engine_of_the_process(tiny_artifacts, drawn_images):
    """The program uses another engine than the one that weights are packed for; captions do not depend on it."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch, runtimes
artifact, image, engine = sys.argv[1:]
torch.backends.quantized.engine = engine
captioner = runtimes.load(artifact, threads=1)
print(torch.backends.quantized.engine, captioner.session.info().providers, captioner.caption([image])[0].token_ids)
"""
    engines = torch.backends.quantized.supported_engines
    said = {}
    for engine in engines:
        command = [sys.executable, "-W", "ignore", "-c", script, str(tiny_artifacts["pytorch-int8"]), str(drawn_images[0].path), engine]
        first, _, rest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(" ")
        assert first == engine
        said[engine] = rest
    assert len(engines) > 1
    assert len(set(said.values())) == 1
