"""Find the layers that a recipe quantizes, and the arithmetic of each."""

from typing import Any

from torch import Tensor, nn

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.onnx.storage import LARGE, optimized
from exporters.recipe import Layer, Recipe
from exporters.rounding.schemes import Scheme, scheme_of
from runtimes.errors import RecipeError


def quantized_layers(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Scheme]:
    """Return the scheme of each `nn.Linear` and `nn.Embedding` that a recipe quantizes, by module name.

    Args:
        checkpoint: Its weights are not read.
        recipe: A recipe of the runtime "ort".

    Raises:
        RecipeError: The recipe has another runtime, smaller images, or INT8 weights per tensor, or it quantizes nothing.
    """
    if recipe.runtime != "ort" or recipe.image_scale != 1:
        raise RecipeError(f"{recipe.name}: fine-tuning supports recipes of the runtime ort with images of full size")
    model = tie_heads(checkpoint, checkpoint.empty_module())
    tables = {model.get_parameter(table): table.rpartition(".")[0] for table in checkpoint.family.head_tables.values()}
    heads = {model.get_parameter(head): head.rpartition(".")[0] for head in checkpoint.family.head_tables}
    schemes: dict[str, Scheme] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Embedding) and module.weight in tables):
            layer = _layer(checkpoint, recipe, heads.get(module.weight, name))
            if (scheme := _scheme(layer, module.weight, recipe, is_table=module.weight in tables)) is not None:
                schemes[name] = scheme
    if not schemes:
        raise RecipeError(f"{recipe.name}: it quantizes no layer of this checkpoint, so there is nothing to fine-tune")
    return schemes


def _layer(checkpoint: Checkpoint, recipe: Recipe, module: str) -> Layer:
    """Return the format of a module's layer."""
    family = checkpoint.family
    return recipe.component(family.component_of(module)).layer(family.layer_of(module))


def _scheme(layer: Layer, weight: Tensor, recipe: Recipe, *, is_table: bool) -> Scheme | None:
    """Return the arithmetic of a weight on the meta device, or None if it is not quantized."""
    if not layer.quantized:
        return None
    if layer.block_size is None and (layer.weights != "qint8" or not layer.per_channel):  # graphs join layers before they are rounded
        raise RecipeError(f"{recipe.name}: fine-tuning supports INT8 weights per channel (qint8, per_channel) and weights in blocks")
    return scheme_of(layer, inputs=weight.shape[1], is_table=is_table, runtime=recipe.runtime)


def stored_as_fp16(checkpoint: Checkpoint, recipe: Recipe) -> set[str]:
    """Return the parameters that the exporter stores as FP16: large ones without integers, unless their layer's format is FP32."""
    model = tie_heads(checkpoint, checkpoint.empty_module())
    quantized = {model.get_submodule(name).weight for name in quantized_layers(checkpoint, recipe)}
    linears = {f"{name}.weight": name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = set()
    for name, parameter in model.named_parameters():
        fp32 = name in linears and _layer(checkpoint, recipe, linears[name]).weights == "fp32"
        component = recipe.component(checkpoint.family.component_of(name))
        if parameter not in quantized and parameter.numel() >= LARGE and optimized(component) and not fp32:
            names.add(name)
    return names


def tie_heads(checkpoint: Checkpoint, model: Any) -> Any:  # noqa: ANN401 - the family's module
    """Make each head of a tied checkpoint and its word embeddings one parameter, and return the module. Loading weights separates them."""
    for head, table in checkpoint.family.head_tables.items() if checkpoint.model.tied else ():
        module, _, name = head.rpartition(".")
        setattr(model.get_submodule(module), name, model.get_parameter(table))
    return model
