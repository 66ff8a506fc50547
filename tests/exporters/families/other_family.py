"""A family that is BLIP under another name: what a new family needs, apart from its own computations."""

from dataclasses import asdict, dataclass, replace

from exporters.families.blip_caption import BlipCaption
from runtimes.families.blip import BlipSpec


@dataclass(frozen=True, kw_only=True)
class OtherSpec(BlipSpec):
    """Its `model` section."""


class OtherCaption(BlipCaption):
    """Its adapter."""

    family = "other"

    def read_config(self, config):
        found = super().read_config(config)
        return replace(found, model=OtherSpec(**asdict(found.model)))
