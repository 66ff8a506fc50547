"""Whether 8-bit weights multiply as they should on this CPU, and so whether an artifact is right here.

x86 without VNNI adds two u8·s8 products in 16 bits (`VPMADDUBSW`), so that full-range weights saturate: an artifact that was right where it
was made says wrong things here (onnxruntime#6004). A CPU's flags do not settle it: emulators and virtual machines show flags that they do
not have, or hide what they have. So onnxruntime multiplies one small product whose answer is known, which takes it half a millisecond.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from runtimes.engines.offer import Int8SelfTest
from runtimes.host.facts import Host

if TYPE_CHECKING:
    from runtimes.selection.ranking import Runnable

R = TypeVar("R", bound="Runnable")


@dataclass(frozen=True, kw_only=True)
class CpuProblem:
    """Why an artifact is not for this CPU."""

    wrong: bool
    """Products of its weights are, and so may its captions be; otherwise it may only be slow."""
    why: str


def int8_selftest_for(held: "Iterable[Runnable]") -> Int8SelfTest | None:
    """Ask onnxruntime where one of the artifacts needs to know; None where none does, or where there is no onnxruntime to run it."""
    if not any(one.target.full_range for one in held):
        return None
    try:
        from runtimes.engines.ort.int8_selftest import run_int8_selftest  # for full-range weights alone: importing counts at every start

        return run_int8_selftest()
    except ImportError:  # opening the artifact reports it
        return None


def check_cpu(one: "Runnable", host: Host, product: Int8SelfTest | None) -> CpuProblem | None:
    """Return why an artifact is wrong or slow on this CPU, or None; the product is that of `int8_selftest_for`."""
    suits = one.target.suits(host.cpu_features)
    tuned = f"is tuned for CPUs with {' or '.join(one.target.cpu_features)}, which this one lacks"
    if one.target.full_range and product is not None and not product.right:
        saturates = f"integer products saturate here ({product.found:,} where {product.expected:,} is right)"
        cause = f"{tuned}; {saturates}" if not suits else f"has weights of full range, and {saturates}"
        return CpuProblem(wrong=True, why=f"{cause}: its captions may be wrong here")
    if suits:
        return None
    known = product is not None and product.right
    return CpuProblem(
        wrong=False, why=f"{tuned}; " + ("its products are right here, but may be slow" if known else "it may be wrong or slow here")
    )


def drop_incorrect(held: Mapping[str, R], host: Host, product: Int8SelfTest | None) -> dict[str, R]:
    """Leave out what this CPU multiplies wrongly, whatever its flags say."""
    misfits = {name: check_cpu(one, host, product) for name, one in held.items()}
    return {name: one for name, one in held.items() if (found := misfits[name]) is None or not found.wrong}
