"""Merge a PEFT adapter into the weights of its base model, with `peft`.

The files are read here, and peft gets tensors: it downloads nothing and reads no pickle.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from exporters.checkpoint.adapter_files import AdapterFiles
from exporters.checkpoint.tensor_files import read_tensors
from exporters.checkpoint.weight_files import first_line
from runtimes.errors import CheckpointError, MissingDependencyError

PREFIX = "base_model.model."
"""Start of the names of tensors in a `PeftModel`."""


def merge_adapter(model: Any, adapter: AdapterFiles) -> dict[str, torch.Tensor]:  # noqa: ANN401 - transformers is untyped
    """Return the weights of a model with an adapter merged into them.

    Args:
        model: transformers' model with the weights of the base. Its head must not share the word embeddings: an adapter of one of them
            does not change the other.
        adapter: The adapter.

    Returns:
        transformers' name → tensor f32.

    Raises:
        MissingDependencyError: peft is not installed.
        CheckpointError: The adapter is damaged, or was trained on another model.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "peft", "--adapter", "adapter") from error
    source, tensors = str(adapter.directory), read_tensors(adapter.weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns about base weights that the adapter's file does not have: it never has them
            config = peft.PeftConfig.from_pretrained(source)
            config.inference_mode = True
            wrapped = peft.PeftModel(model, config)
            loaded = peft.set_peft_model_state_dict(wrapped, dict(tensors))
            own = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    except Exception as error:  # damaged configs and other base models raise exceptions of many classes
        raise CheckpointError(
            source, f"does not fit the base model: {first_line(error)}; export the model that it was trained on"
        ) from error
    if wrong := sorted({*loaded.unexpected_keys, *(own.keys() - tensors.keys())}):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(
            source,
            f"does not fit the base model: the tensor {wrong[0]}{more} is missing or unknown; export the model that it was trained on",
        )
    merged: Mapping[str, torch.Tensor] = wrapped.merge_and_unload().state_dict()
    return {name: tensor.detach().float().clone() for name, tensor in merged.items() if not name.endswith(".position_ids")}
