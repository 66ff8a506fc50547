"""A short soak: what `make soak` does with 10,000 images."""

import pytest

from tests.soak import CORRUPT, DRIFT, soak


@pytest.mark.full
def test_two_thousand_images(tiny_artifacts, tmp_path):
    soaked = soak(tiny_artifacts["onnx-int8"], tmp_path, 2000, kills=5, seed=1)
    assert soaked.errors == len(CORRUPT)
    assert soaked.kills == 5
    assert soaked.worker_kills > 0
    assert soaked.same_bytes
    assert {name: drift for name, drift in soaked.drift.items() if drift > DRIFT} == {}
    assert soaked.first["worker MB"] > 50  # it was really watched
