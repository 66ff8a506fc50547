"""Run the graph "encoder" of an engine on several inputs at once or one by one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.decoding.session import Inputs, Int64
from runtimes.engines.engine import Engine, Value


def encode(engine: Engine, inputs: Inputs, outputs: Sequence[str], *, image_per_run: bool) -> dict[str, Value]:
    """Encode B inputs and return the outputs by name, each with a first axis of length B.

    Args:
        engine: An engine with the graph "encoder".
        inputs: Name → array of B inputs.
        outputs: Names of the outputs.
        image_per_run: Encode one image per run. Encoders with dynamic INT8 need it: they compute activation scales over all images of a
            run, and a result must not depend on the other images of its batch.
    """
    images = len(next(iter(inputs.values())))
    if not image_per_run or images == 1:
        return _run(engine, inputs, outputs)
    stacked: dict[str, NDArray[Any]] = {}
    for image, single in enumerate(one_by_one(inputs, images)):
        copy_rows(engine, _run(engine, single, outputs), stacked, slice(image, image + 1), images)
    return {name: engine.to_engine(array) for name, array in stacked.items()}


def copy_rows(engine: Engine, values: dict[str, Value], stacked: dict[str, NDArray[Any]], rows: slice | Int64, total: int) -> None:
    """Copy the outputs of one run to rows of arrays.

    It is a function of its own, because ONNX Runtime keeps all outputs of a run while a variable refers to one of them.

    Args:
        engine: The engine of the outputs.
        values: Name → output of the run.
        stacked: Name → array of `total` rows. The first run adds the arrays.
        rows: Where the outputs belong.
        total: Number of rows of all runs.
    """
    for name, value in values.items():
        array = engine.to_numpy(value)
        if name not in stacked:
            stacked[name] = np.empty((total, *array.shape[1:]), array.dtype)
        stacked[name][rows] = array


def one_by_one(inputs: Inputs, images: int) -> Iterator[Inputs]:
    """Yield the inputs of each image, with a first axis of length 1."""
    for image in range(images):
        yield {name: array[image : image + 1] for name, array in inputs.items()}


def _run(engine: Engine, inputs: Inputs, outputs: Sequence[str]) -> dict[str, Value]:
    feeds = {name: engine.to_engine(array) for name, array in inputs.items()}
    return engine.run("encoder", engine.bind("encoder", {}), feeds, outputs)
