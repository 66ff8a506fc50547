"""The modifications of a BLIP module for its export."""

from dataclasses import replace

import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_graphs import scale_queries
from runtimes.engines.pytorch.blip import Blip

QKV = "vision_model.encoder.layers.0.self_attn.qkv"


def random_model(checkpoint, heads: int) -> Blip:
    """Return a module with random weights and this number of heads in its vision encoder, whose width is 32."""
    model = Blip(replace(open_checkpoint(str(checkpoint)).model, vision_heads=heads)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize(("heads", "factor"), [(2, 0.25), (8, 0.5)])
def test_a_scale_that_is_a_power_of_two_moves_into_the_weights_of_the_query_and_changes_no_bit(tiny_checkpoint, heads, factor):
    model = random_model(tiny_checkpoint, heads)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    states, before = model.image_states(pixels), {name: value.clone() for name, value in model.named_parameters()}
    scale_queries(model)
    assert torch.equal(model.image_states(pixels), states)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {f"vision_model.encoder.layers.{layer}.self_attn.qkv.{kind}" for layer in range(2) for kind in ("weight", "bias")}
    after = model.get_parameter(f"{QKV}.weight")
    assert torch.equal(after, torch.cat([before[f"{QKV}.weight"][:32] * factor, before[f"{QKV}.weight"][32:]]))


def test_another_scale_stays_in_the_graph(tiny_checkpoint):
    model = random_model(tiny_checkpoint, heads=4)
    before = model.get_parameter(f"{QKV}.weight").clone()
    scale_queries(model)
    assert torch.equal(model.get_parameter(f"{QKV}.weight"), before)
