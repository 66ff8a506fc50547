"""Export transformers' BLIP modules in the layout of other ports: a vision graph and a text graph.

    encoder  pixels f32[B,3,S,S] → encoder_hidden_states f32[B,N,D]
    decoder  token_ids i64[R,T], encoder_hidden_states f32[R,N,D], past_key_i, past_value_i f32[R,H,P,Dh]
             → logits f32[R,T,V], present_key_i, present_value_i f32[R,H,P+T,Dh]

Self-attention has a KV cache. Cross-attention has none: each step computes its keys and values again from the image. winml-cli's BLIP and
OpenVINO's BLIP example split the model in this way. torch's exporter chooses the operators.
"""

from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from exporters.families.adapter import GraphExport
from exporters.families.blip_graphs import layer_names
from exporters.families.hf_text_model import load_transformers_model
from exporters.onnx.graphs import export_graph
from toolkit.bench.peers.folder import Sources


class Vision(nn.Module):
    """The vision tower: pixels → hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """f32[B,3,S,S] → f32[B,N,D]."""
        return self.model(pixel_values=pixels).last_hidden_state


class Text(nn.Module):
    """The text decoder: tokens, the image's hidden states and the past of self-attention → logits and the new past."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, hidden: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Run the decoder; inputs and outputs as in the module's docstring."""
        own = DynamicCache()
        for layer, (key, value) in enumerate(zip(past[::2], past[1::2], strict=True)):
            own.update(key, value, layer)
        output = self.model(
            input_ids=token_ids, encoder_hidden_states=hidden, past_key_values=EncoderDecoderCache(own, DynamicCache()), use_cache=True
        )
        return (output.logits, *(tensor for layer in own.layers for tensor in (layer.keys, layer.values)))


def prepare_onnx(sources: Sources, folder: Path) -> None:
    """Write the graphs into a peer's folder."""
    export_recompute_graphs(sources, folder)


def export_recompute_graphs(sources: Sources, folder: Path) -> dict[str, Path]:
    """Write `encoder.onnx` and `decoder.onnx` and return them by role."""
    transformers.logging.set_verbosity_error()
    checkpoint = sources.checkpoint
    model = load_transformers_model(
        checkpoint.directory, torch.float32, tied=checkpoint.model.tied, weights=checkpoint.renamed_weights()
    ).eval()
    vision, text = model.config.vision_config, model.config.text_config
    layers, heads = text.num_hidden_layers, text.num_attention_heads
    past, present = layer_names("past", layers), layer_names("present", layers)
    # All lengths exceed 1: tracing may treat an axis of length 1 as a constant.
    rows, before, new, tokens = 2, 3, 4, (vision.image_size // vision.patch_size) ** 2 + 1
    kv = [torch.zeros(rows, heads, before, text.hidden_size // heads) for _ in past]
    files = {role: folder / f"{role}.onnx" for role in ("encoder", "decoder")}
    own_vision, own_text = Vision(model.vision_model), Text(model.text_decoder)
    graphs = [
        GraphExport(
            role="encoder",
            module=own_vision,
            attention=own_vision,
            example=(torch.zeros(2, 3, vision.image_size, vision.image_size),),
            inputs=["pixels"],
            outputs=["encoder_hidden_states"],
            axes={"pixels": {0: "images"}, "encoder_hidden_states": {0: "images"}},
        ),
        GraphExport(
            role="decoder",
            module=own_text,
            attention=own_text,
            example=(torch.ones(rows, new, dtype=torch.int64), torch.zeros(rows, tokens, vision.hidden_size), *kv),
            inputs=["token_ids", "encoder_hidden_states", *past],
            outputs=["logits", *present],
            axes={
                "token_ids": {0: "rows", 1: "new"},
                "encoder_hidden_states": {0: "rows"},
                "logits": {0: "rows", 1: "new"},
                **{name: {0: "rows", 2: "past"} for name in past},
                **{name: {0: "rows", 2: "past_and_new"} for name in present},
            },
        ),
    ]
    for graph in graphs:
        export_graph(graph, files[graph.role])
    return files
