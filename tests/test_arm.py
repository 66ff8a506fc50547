"""The comparison of `make check-arm`, and its script on this machine. The emulation itself needs a network and qemu."""

import subprocess
import sys

import numpy as np
import pytest

from runtimes import load
from tests.arm import PROBE, compare
from tests.paths import ROOT


def test_captions_and_logits_are_compared():
    here = {"ids": np.array([[1, 2, 3], [1, 4, 3]]), "rows": np.zeros((2, 3, 4)), "texts": np.array(["a", "b"])}
    arm = {"ids": np.array([[1, 2, 3], [1, 5, 3]]), "rows": np.full((2, 3, 4), 0.25), "texts": np.array(["a", "c"])}
    arm["rows"][1, 2, 3] = -0.5
    row = compare("onnx-int8", here, arm, verified=True)
    assert (row.same_captions, row.images, row.largest_difference) == (1, 2, 0.5)
    assert row.mean_difference == pytest.approx((0.25 * 23 + 0.5) / 24)
    assert row.different == ("c (here: b)",)


def test_the_probe_stores_ids_and_log_probabilities(tiny_artifacts, drawn_images, tmp_path):
    artifact, images = tiny_artifacts["onnx-fp32"], [str(image.path) for image in drawn_images[:2]]
    command = [sys.executable, "-c", PROBE, str(artifact), str(tmp_path / "probe.npz"), *images]
    subprocess.run(command, check=True, cwd=ROOT)
    found = np.load(tmp_path / "probe.npz")
    with load(artifact, threads=1) as captioner:
        expected = captioner.caption(images)
        rows = captioner.token_log_probabilities(images[0], captions=["a red bird on a branch"])[0]
    assert [tuple(ids[ids >= 0]) for ids in found["ids"]] == [caption.token_ids for caption in expected]
    assert np.array_equal(found["rows"][0], rows)
    assert np.exp(found["rows"]).sum(axis=-1) == pytest.approx(1, abs=1e-4)
