"""A family that is BLIP under another name: what a new family needs, apart from its own computations."""

from dataclasses import asdict, dataclass, replace

from exporters.families.blip_caption import BLIP_CAPTION
from runtimes.families.blip import BlipSpec


@dataclass(frozen=True, kw_only=True)
class OtherSpec(BlipSpec):
    """Its `model` section."""


def read_config(config):
    found = BLIP_CAPTION.read_config(config)
    return replace(found, model=OtherSpec(**asdict(found.model)))


OTHER_CAPTION = replace(BLIP_CAPTION, family="other", read_config=read_config)
