"""Open a checkpoint: its sizes, image preprocessing, tokenizer and FP32 weights, from a directory or a hub id."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from exporters.checkpoint.adapter import merge_adapter
from exporters.checkpoint.adapter_files import AdapterFiles, find_adapter
from exporters.checkpoint.files import (
    find_folder,
    find_settings,
    find_weight_files,
    read_config,
    read_licence,
    sha256_of_files,
)
from exporters.checkpoint.generation_settings import read_defaults
from exporters.checkpoint.image_settings import image_spec, read_image_settings
from exporters.checkpoint.refusals import (
    ADAPTER,
    is_weight_file,
    refuse_both,
    refuse_config,
    refuse_names,
    refuse_source,
    refuse_tokenizer,
)
from exporters.checkpoint.tensor_files import is_tied, other_states, read_tensors, row_counts, tensor_names
from exporters.checkpoint.weight_files import WRAPPERS, find_prefix, first_line, plain_name, refuse_rows, refuse_shards
from exporters.checkpoint.weight_fit import fit_problem
from exporters.families.adapter import CheckpointConfig, FamilyAdapter, find_family
from exporters.families.architectures import MODEL_TYPES
from exporters.families.folding import Smoothing, fold_scales
from exporters.families.tokenizer import load_tokenizer
from exporters.writing.output_paths import merged_name, name_of
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec, Source, TokenizerSpec
from runtimes.engine_registry import load_target
from runtimes.errors import CheckpointError, RequestError
from runtimes.families.registry import ModelSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk whose architecture is in `FAMILIES`."""

    name: str
    """Last part of its path or hub id; names of artifacts start with it."""
    directory: Path
    weight_files: tuple[Path, ...]
    source: Source
    family: FamilyAdapter
    model: ModelSpec
    """Sizes of the model to export: `stored_model`, except after `with_image_scale`."""
    stored_model: ModelSpec
    """Sizes of the tensors in the weight files."""
    image: ImageSpec
    tokenizer: TokenizerSpec
    defaults: GenerationConfig
    tokenizer_json: bytes
    prefix: str = ""
    """What a training wrapper put before every tensor name, such as `module.`."""
    renamed: bool = False
    """Whether transformers does not find the weights: because of their names, because they are one file outside of `directory`, or because
    an adapter is merged into them."""
    merged: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)
    """The weights by transformers' names, if an adapter is merged into them."""
    smoothing: Smoothing | None = None
    """Scales that `load_weights` folds into the weights."""

    def with_image_scale(self, scale: float) -> "Checkpoint":
        """Return this checkpoint for smaller images; `load_weights` then interpolates the position embeddings.

        Args:
            scale: Patches per side, relative to the stored model's; above 0, at most 1.
        """
        if scale == 1:
            return self
        model, image = self.family.scaled(self.stored_model, self.image, scale)
        return replace(self, model=model, image=image)

    def require_generator(self, what: str) -> None:
        """Raise RequestError if the model generates no texts, which `what` needs."""
        if not self.family.per_token:
            raise RequestError(f"{what} is for models that generate texts; {self.name} has the task '{self.family.task}'")

    @property
    def fp32_bytes(self) -> int:
        """Size of all weights in FP32, in bytes."""
        return sum(parameter.nbytes for parameter in self.empty_module().parameters())

    def empty_module(self) -> Any:  # noqa: ANN401 - the family's module
        """Return the family's torch module on the meta device, so that its weights take no memory."""
        return _module(self.model)

    def layers(self) -> dict[str, list[str]]:
        """Return the layers whose format a recipe can set: component → names. Tables of word embeddings without a head are among them."""
        names: dict[str, list[str]] = {component: [] for component in self.family.components}
        linears = [name for name, module in self.empty_module().named_modules() if isinstance(module, torch.nn.Linear)]
        for layer in dict.fromkeys(self.family.layer_of(name) for name in (*linears, *self.tables.values())):
            names[self.family.component_of(layer)].append(layer)
        return names

    @property
    def tables(self) -> dict[str, str]:
        """Parameter of word embeddings → layer that determines its format: the head that shares it, or else the table itself."""
        heads = {table: head for head, table in self.family.head_tables.items()} if self.model.tied else {}
        tables = (*self.family.head_tables.values(), *self.family.lookup_tables)
        return {table: heads.get(table, table).removesuffix(".weight") for table in tables}

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Read all weights.

        Returns:
            Parameter name of the family's module → tensor f32. A tied tensor appears under each of its names.

        Raises:
            CheckpointError: A file is damaged, or tensors are missing, unknown or of the wrong shape. The message names the first five.
        """
        file = self.weight_files[0]
        where = str(self.directory if file.parent == self.directory else file)
        raw: dict[str, torch.Tensor] = {name: tensor.clone() for name, tensor in (self.merged or {}).items()}
        for file in () if self.merged else self.weight_files:
            tensors = read_tensors(file).items()
            raw.update({name.removeprefix(self.prefix): tensor for name, tensor in tensors if name.startswith(self.prefix)})
        try:
            weights = self.family.named_weights(raw)
        except ValueError as error:
            raise CheckpointError(where, str(error)) from error
        expected = {name: tuple(tensor.shape) for name, tensor in _module(self.stored_model).state_dict().items()}
        if problem := fit_problem(weights, expected):
            raise CheckpointError(where, problem)
        fitted = self.family.fitted_weights(weights, self.model)
        return fitted if self.smoothing is None else fold_scales(fitted, self.family.folds(self.model), self.smoothing.scales)

    def renamed_weights(self) -> dict[str, torch.Tensor] | None:
        """Return the weights as transformers names and shapes them, if it does not find them; None if it does."""
        plain = replace(self, model=self.stored_model, smoothing=None)
        return self.family.saved_weights(plain.load_weights()) if self.renamed else None

    def load_model(self) -> Any:  # noqa: ANN401 - the family's module
        """Return the family's module with its FP32 weights, in evaluation mode and without gradients."""
        model = self.empty_module()
        model.load_state_dict(self.load_weights(), strict=True, assign=True)
        return model.eval().requires_grad_(False)


def open_checkpoint(
    source: str, revision: str | None = None, *, safetensors_only: bool = False, like: str | None = None, adapter: Path | None = None
) -> Checkpoint:
    """Open a checkpoint and read everything except its weights.

    Args:
        source: A directory in Hugging Face's layout, a hub id such as `Salesforce/blip-image-captioning-base`, or one file of weights, such
            as the `.pth` of BLIP's authors.
        revision: Commit, tag or branch of a hub id.
        safetensors_only: Refuse `pytorch_model.bin`, a pickle, which is otherwise read by torch's weights-only loader.
        like: Directory or hub id with the settings and the tokenizer of one file of weights. None: the folder of the file, if it has a
            config.json, or else the captioner of its size that BLIP's authors published.
        adapter: Folder of a PEFT adapter that is merged into the weights.

    Raises:
        MissingDependencyError: There is an adapter, and peft is not installed.
        CheckpointError: The checkpoint is missing, unreadable, of an unsupported architecture, or uses an unsupported feature.
    """
    adapter_files = None if adapter is None else find_adapter(adapter, safetensors_only=safetensors_only)
    is_file = is_weight_file(source)
    if not is_file and like is not None:
        cure = refuse_source(source) if Path(source).is_file() else "--like is for one file of weights; leave the option out"
        raise CheckpointError(source, cure)
    if is_file and revision is not None:
        raise CheckpointError(source, "--revision is for hub ids, this is a file")
    directory = find_settings(Path(source), like) if is_file else find_folder(source, revision, safetensors_only=safetensors_only)
    raw = read_config(directory, source)
    family = _family(raw, source)
    files = find_weight_files(directory, source, safetensors_only=safetensors_only)
    stored = tensor_names(files)
    tables = {*family.head_tables.values(), *family.lookup_tables}
    names = [plain_name(name) for name in stored]
    prefix = find_prefix(names, [*family.head_tables, *tables], source)
    if problem := (adapter is None and not is_file and refuse_both(directory)) or refuse_shards(files, stored, source):
        raise CheckpointError(source, problem)
    if problem := refuse_names([name.removeprefix(prefix) for name in names if name.startswith(prefix)], family.own_parts):
        raise CheckpointError(source, problem)
    try:
        config = family.read_config(raw)
    except Exception as error:  # damaged configs raise exceptions of many classes
        raise CheckpointError(source, f"config.json cannot be exported: {first_line(error)}") from error
    settings = read_image_settings(directory, source)
    try:
        image = image_spec(family.image_processor().from_dict(settings))
        config.model.check_image(image.height_px, image.width_px)
    except ValueError as error:
        raise CheckpointError(source, f"its image processor does not fit the model: {error}; write the model's size") from error
    if problem := refuse_tokenizer(directory):
        raise CheckpointError(source, problem)
    try:
        loaded = load_tokenizer(directory)
        tokenizer = loaded.backend_tokenizer
    except Exception as error:  # transformers passes on the exceptions of its parsers
        raise CheckpointError(source, f"cannot read its tokenizer: {first_line(error)}") from error
    rows = row_counts(files, {f"{prefix}{table}" for table in tables})
    row_problems = (refuse_rows(table, count, config.model.vocabulary) for table, count in rows.items())
    if problem := next(filter(None, row_problems), None) or _vocabulary_problem(tokenizer, config):
        raise CheckpointError(source, problem)
    if wrappers := [wrapper for wrapper in WRAPPERS if any(wrapper in name for name in stored)]:
        logger.warning("%s: %s is removed from the names of its tensors", source, ", ".join(wrappers))
    if is_file and (others := other_states(Path(source))):
        logger.warning("%s: it has other states of the model, which are ignored: %s", source, ", ".join(others))
    if prefix:
        logger.warning("%s: the prefix %s is removed from the names of its tensors", source, prefix)
    if beside := [name for name in names if not name.startswith(prefix)]:
        logger.warning("%s: tensors without the prefix %s are ignored: %s", source, prefix, ", ".join(beside[:5]))
    defaults, left_out = read_defaults(directory, raw, config.model.max_positions, config.model.vocabulary, source)
    if left_out:
        logger.warning("%s: artifacts do not apply these decoding settings of the checkpoint: %s", source, ", ".join(left_out))
    model = replace(config.model, tied=is_tied(files, family.head_tables, prefix))  # type: ignore[type-var]  # a dataclass
    checkpoint = Checkpoint(
        name=name_of(source),
        directory=directory,
        weight_files=files,
        source=Source(
            model=name_of(source) if Path(source).exists() else source,
            revision=None if Path(source).exists() else directory.name,  # in the hub's cache, a snapshot folder is named after its commit
            sha256=sha256_of_files(files, source),
            licence=None if is_file else read_licence(directory),
        ),
        family=family,
        model=model,
        stored_model=model,
        image=image,
        tokenizer=replace(config.tokenizer, clean_up_tokenization_spaces=bool(loaded.clean_up_tokenization_spaces)),
        defaults=defaults,
        tokenizer_json=tokenizer.to_str().encode(),
        prefix=prefix,
        renamed=is_file or prefix != "" or names != stored,
    )
    return checkpoint if adapter_files is None else _with_adapter(checkpoint, adapter_files)


def _with_adapter(checkpoint: Checkpoint, adapter: AdapterFiles) -> Checkpoint:
    """Return a checkpoint with an adapter merged into its weights.

    Raises:
        MissingDependencyError, CheckpointError: See `merge_adapter`.
    """
    base = checkpoint.family.untied_model(checkpoint.directory, checkpoint.family.saved_weights(checkpoint.load_weights()))
    merged = merge_adapter(base, adapter)
    tied = all(torch.equal(merged[head], merged[table]) for head, table in checkpoint.family.head_tables.items())
    model = replace(checkpoint.model, tied=tied)  # type: ignore[type-var]  # a dataclass
    files = (*checkpoint.weight_files, adapter.directory / ADAPTER, adapter.weights)
    sha256 = sha256_of_files(files, str(adapter.directory))
    name = merged_name(checkpoint.name, adapter.directory)
    source = replace(checkpoint.source, model=f"{checkpoint.source.model} with {name_of(str(adapter.directory))}", sha256=sha256)
    return replace(checkpoint, name=name, source=source, model=model, stored_model=model, renamed=True, merged=merged)


def _family(config: dict[str, Any], source: str) -> FamilyAdapter:
    """Return the adapter of the first supported architecture that config.json names, or else of its `model_type`."""
    if problem := refuse_config(config):
        raise CheckpointError(source, problem)
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) and architectures else [MODEL_TYPES[config["model_type"]]]
    return next(family for name in names if (family := find_family(str(name))) is not None)


def _module(model: ModelSpec) -> Any:  # noqa: ANN401 - the family's module
    """Build a model's torch module on the meta device."""
    with torch.device("meta"):
        return load_target(model.TORCH_MODULE)(model)


def _vocabulary_problem(tokenizer: Tokenizer, config: CheckpointConfig) -> str | None:
    """Return why a tokenizer does not fit the model, or None if it fits."""
    words, rules = config.model.vocabulary, config.tokenizer
    beyond = sorted((number, word) for word, number in tokenizer.get_vocab().items() if number >= words)
    if beyond:
        (number, word), *others = beyond
        more = f" and {len(others)} more" if others else ""
        return (
            f"its tokenizer has the word {word!r} with id {number}{more}, the model's vocabulary has {words} words; use the tokenizer that "
            "the model was trained with"
        )
    added = len(tokenizer.encode("").ids)
    if added != rules.drop_left + rules.drop_right:
        return (
            f"its tokenizer adds {added} ids to a text, BLIP's adds {rules.drop_left + rules.drop_right} ([CLS] and [SEP]); "
            "use the tokenizer that the model was trained with"
        )
    return None
