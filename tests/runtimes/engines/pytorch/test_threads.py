"""Test torch's process-wide settings: a session uses its own values, and the program around it keeps the former ones."""

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
def thread_counts(monkeypatch):
    """Return a list that collects torch's number of threads at each run of a model."""
    counts = []
    for name in ("encode", "decode"):
        run = getattr(Blip, name)
        monkeypatch.setattr(Blip, name, lambda *inputs, run=run: (counts.append(torch.get_num_threads()), run(*inputs))[1])
    return counts


def test_captioners_use_and_report_their_own_number_of_threads(tiny_artifacts, drawn_images, thread_counts):
    image, own = drawn_images[0].path, torch.get_num_threads()
    captioners = {threads: runtimes.load(tiny_artifacts["pytorch-fp32"], threads=threads) for threads in (1, 3, 2)}
    for threads, captioner in captioners.items():
        captioner.caption([image], num_beams=2)
        assert set(thread_counts) == {threads}
        assert captioner.session.info().threads == threads
        assert torch.get_num_threads() == own
        thread_counts.clear()


def test_overlapping_bodies_restore_the_former_number():
    """The order in which bodies end does not matter, nor that a thread uses torch for the first time while a body runs."""
    own, inside = torch.get_num_threads(), Barrier(3)

    def body(count):
        with CpuThreads(count):
            inside.wait()
            during = torch.get_num_threads()
            inside.wait()
        return during, torch.get_num_threads()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(body, (1, 2, 5))) == [(1, own), (2, own), (5, own)]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == own


@pytest.mark.full
def test_loading_int8_keeps_the_quantized_engine_of_the_process(tiny_artifacts, drawn_images):
    """The program's engine may differ from the one that weights are packed for; captions do not depend on it."""
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
    outputs = {}
    for engine in engines:
        command = [sys.executable, "-W", "ignore", "-c", script, str(tiny_artifacts["pytorch-int8"]), str(drawn_images[0].path), engine]
        first, _, rest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(" ")
        assert first == engine
        outputs[engine] = rest
    assert len(engines) > 1
    assert len(set(outputs.values())) == 1
