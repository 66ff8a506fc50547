"""Whether 8-bit weights multiply as they should on this CPU, and so whether an artifact is right here.

x86 without VNNI adds two u8·s8 products in 16 bits (`VPMADDUBSW`), so that full-range weights saturate: an artifact that was right where it
was made says wrong things here (onnxruntime#6004). A CPU's flags do not settle it: emulators and virtual machines show flags that they do
not have, or hide what they have. So onnxruntime multiplies one small product whose answer is known, which takes it half a millisecond.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from runtimes.host.facts import Host

if TYPE_CHECKING:
    from runtimes.selection.ranking import Runnable

R = TypeVar("R", bound="Runnable")

ROWS, INPUTS, OUTPUTS = 4, 64, 16
"""Several rows, as an encoder has: one row may take another path through the library."""
LARGEST = 255, 127
"""Of u8 activations and s8 weights: two such products are 64,770, twice what 16 bits hold."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What came out where every element should be the same known sum."""

    expected: int
    found: int

    @property
    def right(self) -> bool:
        """Whether nothing saturated."""
        return self.found == self.expected


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Why an artifact is not for this CPU."""

    wrong: bool
    """Products of its weights are, and so may its captions be; otherwise it may only be slow."""
    why: str


@cache
def largest_product() -> Product:
    """Multiply the largest numbers of both kinds with onnxruntime, here and now.

    Raises:
        ImportError: onnxruntime is not there or cannot start.
    """
    import onnxruntime

    from runtimes.engines.ort.matmul_model import (  # for full-range weights alone, and importing counts at every start
        INTEGERS,
        matmul_model,
    )

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    activation, weight = LARGEST
    model = matmul_model(INTEGERS, ROWS, np.full((INPUTS, OUTPUTS), weight, np.int8))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"a": np.full((ROWS, INPUTS), activation, np.uint8)})
    expected = activation * weight * INPUTS
    return Product(expected=expected, found=int(sums.flat[np.abs(sums - expected).argmax()]))


def product_for(held: "Iterable[Runnable]") -> Product | None:
    """Ask onnxruntime where one of the artifacts needs to know; None where none does, or where there is no onnxruntime to run it."""
    if not any(one.target.full_range for one in held):
        return None
    try:
        return largest_product()
    except ImportError:  # who opens the artifact says so
        return None


def misfit(one: "Runnable", host: Host, product: Product | None) -> Misfit | None:
    """Say what is wrong with running an artifact, or one of a recipe, on this CPU, if anything; the product is that of `product_for`."""
    missing = ", ".join(sorted(set(one.target.cpu_features) - host.cpu_features))
    tuned = f"is tuned for CPUs with {missing}, which this one lacks"
    if one.target.full_range and product is not None and not product.right:
        saturates = f"integer products saturate here ({product.found:,} where {product.expected:,} is right)"
        cause = f"{tuned}; {saturates}" if missing else f"has weights of full range, and {saturates}"
        return Misfit(wrong=True, why=f"{cause}: its captions may be wrong here")
    if not missing:
        return None
    known = product is not None and product.right
    return Misfit(
        wrong=False, why=f"{tuned}; " + ("its products are right here, but may be slow" if known else "it may be wrong or slow here")
    )


def right_here(held: Mapping[str, R], host: Host, product: Product | None) -> dict[str, R]:
    """Leave out what this CPU multiplies wrongly, whatever its flags say."""
    misfits = {name: misfit(one, host, product) for name, one in held.items()}
    return {name: one for name, one in held.items() if (found := misfits[name]) is None or not found.wrong}
