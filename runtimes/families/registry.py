"""The registry of model families: `family` and `task` of a manifest → class of its `model` section.

To add a family, write a module with a frozen dataclass that implements `ModelSpec`, and add an entry to `FAMILIES`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from runtimes.engine_registry import load_target
from runtimes.families.signature import Signature


class ModelSpec(Protocol):
    """The sizes of a model: a frozen dataclass of JSON values. Its `__post_init__` raises ValueError for sizes that no model has."""

    TORCH_MODULE: ClassVar[str]
    """`module:class` of the torch module. Its constructor takes the spec and nothing else."""

    @property
    def tied(self) -> bool:
        """Whether the head and the word embeddings are one tensor."""
        ...

    @property
    def vocabulary(self) -> int:
        """V: size of the vocabulary."""
        ...

    @property
    def max_positions(self) -> int:
        """Largest number of tokens of a text."""
        ...

    @property
    def vision_tokens(self) -> int:
        """N: number of tokens of an encoded image."""
        ...

    def check_image(self, height_px: int, width_px: int) -> None:
        """Raise ValueError if the model does not accept images of this size."""
        ...

    def signatures(self, contract: str, precision: str) -> dict[str, Signature]:
        """Return role → expected signature of every graph of a contract; empty if the family does not support the contract."""
        ...


FAMILIES = {
    ("blip", "caption"): "runtimes.families.blip:BlipSpec",
    ("blip", "vqa"): "runtimes.families.blip_vqa:BlipVqaSpec",
    ("blip", "matching"): "runtimes.families.blip_matching:BlipMatchingSpec",
}
"""(family, task) → "module:class" of the model section, imported when a manifest needs it."""


def model_class(family: object, task: object) -> Any | None:  # noqa: ANN401 - a class that implements ModelSpec
    """Return the class of the model section, or None for an unknown pair of family and task."""
    target = FAMILIES.get((family, task)) if isinstance(family, str) and isinstance(task, str) else None
    return None if target is None else load_target(target)


def check_sizes(spec: Any, limits: Mapping[str, int], default_limit: int) -> None:  # noqa: ANN401 - any dataclass
    """Raise ValueError for an integer field below 1 or above its limit, so that a forged manifest cannot exhaust memory.

    Args:
        spec: A dataclass.
        limits: Field → largest value.
        default_limit: Largest value of fields without a limit of their own.
    """
    for field in fields(spec):
        value, limit = getattr(spec, field.name), limits.get(field.name, default_limit)
        if type(value) is int and not 1 <= value <= limit:
            raise ValueError(f"{field.name} is {value}, not 1 to {limit}")
