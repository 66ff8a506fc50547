"""A family with BLIP's computations under another name: the least that a new family needs."""

from dataclasses import asdict, dataclass, replace

from exporters.families.blip_caption import BLIP_CAPTION
from runtimes.families.blip import BlipSpec


@dataclass(frozen=True, kw_only=True)
class OtherSpec(BlipSpec):
    """The `model` section of its manifest."""


def read_config(config):
    parsed = BLIP_CAPTION.read_config(config)
    return replace(parsed, model=OtherSpec(**asdict(parsed.model)))


OTHER_CAPTION = replace(BLIP_CAPTION, family="other", read_config=read_config)
