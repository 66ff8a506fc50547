"""Find and check the files of a PEFT adapter, without peft or torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.checkpoint.refusals import ADAPTER
from exporters.checkpoint.weight_files import read_object
from runtimes.errors import CheckpointError

MERGED = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3")
"""`peft_type` of adapters that can be merged into the weights of their base model."""
WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """An adapter whose files are there and whose settings can be merged."""

    directory: Path
    config: Mapping[str, Any]
    """adapter_config.json."""
    weights: Path

    @property
    def base(self) -> str | None:
        """The base model that the adapter names, if it names one."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None


def find_adapter(directory: Path, *, safetensors_only: bool = False) -> AdapterFiles:
    """Return the files of an adapter.

    Args:
        directory: The folder that `save_pretrained` of the PEFT model wrote.
        safetensors_only: Refuse `adapter_model.bin`.

    Raises:
        CheckpointError: A file is missing or unreadable, or the adapter cannot be merged.
    """
    source = str(directory)
    if not (directory / ADAPTER).is_file():
        raise CheckpointError(source, f"has no {ADAPTER}; name the folder that save_pretrained() of the PEFT model wrote")
    config = read_object(directory / ADAPTER)
    if (kind := config.get("peft_type")) not in MERGED:
        raise CheckpointError(
            source,
            f"is an adapter of type {kind!r}, which cannot be merged here ({', '.join(MERGED)}); merge it with peft and save the model",
        )
    if config.get("megatron_config") is not None:  # peft then imports the module that `megatron_core` names
        raise CheckpointError(
            source, "its adapter_config.json has a megatron_config, which names code to run; merge it with peft and save the model"
        )
    files = [directory / name for name in ((WEIGHTS,) if safetensors_only else (WEIGHTS, PICKLE))]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None and (directory / PICKLE).is_file():
        raise CheckpointError(source, f"has only {PICKLE}, which --safetensors-only refuses; leave the option out")
    if weights is None:
        raise CheckpointError(source, f"has neither {WEIGHTS} nor {PICKLE}; copy or download the weights of the adapter")
    return AdapterFiles(directory=directory, config=config, weights=weights)
