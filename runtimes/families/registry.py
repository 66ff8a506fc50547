"""The model families that this toolkit runs: `family` and `task` of a manifest → the class of its `model` section.

A new family is one module with a frozen dataclass that implements `ModelSpec`, and one entry of `FAMILIES`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from runtimes.engine_registry import load_target
from runtimes.families.signature import Signature


class ModelSpec(Protocol):
    """Sizes of a model. A frozen dataclass of JSON values whose `__post_init__` raises ValueError for sizes that no model has."""

    TORCH_MODULE: ClassVar[str]
    """`module:class` of the torch module, which is built from the spec alone."""

    @property
    def vocabulary(self) -> int:
        """V: number of token ids."""
        ...

    @property
    def max_positions(self) -> int:
        """Most tokens of a text."""
        ...

    @property
    def vision_tokens(self) -> int:
        """N: tokens of an encoded image."""
        ...

    def check_image(self, height_px: int, width_px: int) -> None:
        """Raise ValueError where the model does not take images of this size."""
        ...

    def signatures(self, contract: str, precision: str) -> dict[str, Signature]:
        """Return role → expected signature of every graph of a contract; none where the family does not have the contract."""
        ...


FAMILIES = {("blip", "caption"): "runtimes.families.blip:BlipSpec"}
"""(family, task) → class of the model section, imported when a manifest needs it."""


def model_class(family: object, task: object) -> Any | None:  # noqa: ANN401 - a class that implements ModelSpec
    """Return the class of the model section, or None where the family does not have the task."""
    target = FAMILIES.get((family, task)) if isinstance(family, str) and isinstance(task, str) else None
    return None if target is None else load_target(target)


def check_sizes(spec: Any, largest: Mapping[str, int], largest_other: int) -> None:  # noqa: ANN401 - any dataclass
    """Raise ValueError for an integer field below 1 or above its largest value: a forged manifest must not exhaust memory."""
    for field in fields(spec):
        value, most = getattr(spec, field.name), largest.get(field.name, largest_other)
        if type(value) is int and not 1 <= value <= most:
            raise ValueError(f"{field.name} is {value}, not 1 to {most}")
