"""Write BLIP checkpoints with random weights in Hugging Face's layout, from a size and a seed. No network is used.

    python -m tests.checkpoints base build/blip-base-random

`tiny` (72 k parameters) captions in milliseconds: its weights are wide enough for captions to differ between images, and its end token
is likely enough for some of them to end early. `base` has the shapes of BLIP-base (224 M parameters), `large` those of
BLIP-large (446 M), for speed and memory.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

from tests.drawn import TINY_WORDS

Shapes = Literal["tiny", "base", "large"]
Task = Literal["caption", "vqa", "matching"]
MODELS = {"caption": BlipForConditionalGeneration, "vqa": BlipForQuestionAnswering, "matching": BlipForImageTextRetrieval}
"""Task → class of transformers."""
END_BIAS = {"caption": 0.4, "vqa": 0.0}
"""Task → bias that is added to the end token of a tiny model, so that some texts end early."""

FILES = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "config.json")
"""Files in the order of writing: a directory with a config.json is complete."""

SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "[DEC]": 62, "[ENC]": 63}
BASE_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, "[DEC]": 30522, "[ENC]": 30523}
"""Ids of BERT's vocabulary, followed by BLIP's two tokens."""

MINI_VOCABULARY = Path(__file__).parents[1] / "models" / "blip-mini-coco" / "vocab.txt"

TIED = ("text_decoder.cls.predictions.decoder.weight", "text_decoder.cls.predictions.decoder.bias")
"""Second names of tensors that the file contains once."""


def write_random_checkpoint(directory: Path, shapes: Shapes, seed: int, task: Task = "caption") -> Path:
    """Write a checkpoint of random weights; the same shapes and seed give the same bytes.

    Args:
        directory: Folder of the checkpoint; it is made if it is missing.
        shapes: "tiny", "base" or "large".
        seed: Seed of the weights.
        task: Task of the model.

    Raises:
        FileExistsError: The folder contains a complete checkpoint.
    """
    if is_complete(directory):
        raise FileExistsError(f"{directory}: contains a checkpoint already")
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIGS[shapes]()
    model = _random_model(config, seed, task, tiny=shapes == "tiny")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in TIED}
    safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(directory, tiny_vocabulary() if shapes == "tiny" else base_vocabulary(), SPECIAL if shapes == "tiny" else BASE_SPECIAL)
    _write_json(directory / "preprocessor_config.json", processor_config(config.vision_config.image_size))
    # Every id and size is written out: save_pretrained would leave out what equals transformers' defaults of today.
    written = {**config.to_dict(), "architectures": [MODELS[task].__name__], "torch_dtype": "float32"}
    _write_json(directory / "config.json", written)
    if shapes == "tiny":  # it has few positions
        _write_json(directory / "generation_config.json", {"max_length": 20})
    return directory


def untie(checkpoint: Path, directory: Path, seed: int) -> Path:
    """Write a copy of a checkpoint whose head differs from its word embeddings, as files of transformers up to 4.44 have it.

    Args:
        checkpoint: The original.
        directory: Folder of the copy; created.
        seed: Seed of the random head, which has the word embeddings' standard deviation.
    """
    shutil.copytree(checkpoint, directory)
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    table = tensors["text_decoder.bert.embeddings.word_embeddings.weight"]
    head, bias = TIED
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed))
    tensors |= {head: noise * table.std(), bias: tensors["text_decoder.cls.predictions.bias"].clone()}
    safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def save_as_transformers_5(checkpoint: Path, directory: Path, tokenizer_class: str = "BertTokenizer") -> Path:
    """Write a copy of a checkpoint with the files that `save_pretrained` of transformers 5.24 writes.

    Args:
        checkpoint: The original, with the files of transformers 4.
        directory: Folder of the copy; created.
        tokenizer_class: "TokenizersBackend" for a tokenizer without a class of its own.
    """
    directory.mkdir(parents=True)
    for name in {"model.safetensors", "tokenizer.json", "generation_config.json"} & {file.name for file in checkpoint.iterdir()}:
        shutil.copy(checkpoint / name, directory)
    config = json.loads((checkpoint / "config.json").read_bytes())
    config["dtype"] = config.pop("torch_dtype")
    _write_json(directory / "config.json", config)
    image = json.loads((checkpoint / "preprocessor_config.json").read_bytes())
    _write_json(directory / "processor_config.json", {"image_processor": image, "processor_class": image.pop("processor_class")})
    tokenizer = json.loads((checkpoint / "tokenizer_config.json").read_bytes())
    tokenizer["extra_special_tokens"] = tokenizer.pop("additional_special_tokens")
    written = {**tokenizer, "tokenizer_class": tokenizer_class, "backend": "tokenizers", "is_local": True, "local_files_only": False}
    _write_json(directory / "tokenizer_config.json", written)
    return directory


def is_complete(directory: Path) -> bool:
    """Return whether a directory contains all files of a checkpoint."""
    return all((directory / name).is_file() for name in FILES)


def tiny_config() -> BlipConfig:
    """Return 2 + 2 layers of width 32 over images of 32 px and 64 words."""
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
    ids = {"bos_token_id": 62, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    return BlipConfig(
        text_config={**width, **ids, "vocab_size": 64, "encoder_hidden_size": 32, "max_position_embeddings": 32},
        image_text_hidden_size=16,
        vision_config={**width, "image_size": 32, "patch_size": 16},
    )


def base_config() -> BlipConfig:
    """Return BLIP-base's shapes: transformers' defaults have 8 text heads and vision weights of almost 0."""
    return BlipConfig(text_config={"num_attention_heads": 12, "encoder_hidden_size": 768}, vision_config={"initializer_range": 0.02})


def large_config() -> BlipConfig:
    """Return BLIP-large's shapes: those of BLIP-base with a larger vision encoder."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return BlipConfig(
        text_config={"num_attention_heads": 12, "encoder_hidden_size": 1024}, vision_config={**vision, "initializer_range": 0.02}
    )


CONFIGS = {"tiny": tiny_config, "base": base_config, "large": large_config}
"""Shapes → function that returns the configuration."""


def tiny_vocabulary() -> dict[str, int]:
    """Return word → id: 64 words."""
    return _vocabulary(64, SPECIAL, TINY_WORDS)


def base_vocabulary() -> dict[str, int]:
    """Return word → id: the 30,524 ids of BLIP-base with the shipped model's words, and made-up ones where those end."""
    words = [word for word in MINI_VOCABULARY.read_text(encoding="utf-8").split("\n") if word and word not in BASE_SPECIAL]
    return _vocabulary(30524, BASE_SPECIAL, words)


def processor_config(side_px: int) -> dict[str, Any]:
    """Return preprocessor_config.json as BLIP-base has it, but for the size."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side_px, "width": side_px},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a checkpoint from the command line; an existing one is not changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoints", description="Write a BLIP checkpoint of random weights.")
    parser.add_argument("shapes", choices=tuple(CONFIGS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=tuple(MODELS), default="caption")
    options = parser.parse_args(arguments)
    if is_complete(options.directory):
        print(f"{options.directory}: contains a checkpoint already; it was not changed")
        return 0
    print(write_random_checkpoint(options.directory, options.shapes, options.seed, options.task))
    return 0


def _random_model(config: BlipConfig, seed: int, task: Task, *, tiny: bool) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = MODELS[task](config)
        if tiny:
            for name, parameter in model.named_parameters():
                # Norms too: if all were 1 and 0, a test could not see that two were swapped.
                parameter.normal_(1.0 if "norm" in name.lower() and name.endswith(".weight") else 0.0, 0.1)
            if task in END_BIAS:
                model.text_decoder.cls.predictions.bias[config.text_config.sep_token_id] += END_BIAS[task]
    return model.eval()


def _vocabulary(size: int, special: dict[str, int], words: Sequence[str]) -> dict[str, int]:
    """Give special tokens their ids and words the other ids in order; invented words fill the rest."""
    by_id = {number: token for token, number in special.items()}
    fill = iter([*words, *(f"filler{number}" for number in range(size - len(words) - len(special)))])
    vocabulary = {by_id.get(number) or next(fill): number for number in range(size)}
    assert len(vocabulary) == size
    assert next(fill, None) is None
    return vocabulary


def _write_tokenizer(directory: Path, vocabulary: dict[str, int], special: dict[str, int]) -> None:
    tokenizer = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": 512,
            **names,
            "bos_token": "[DEC]",
            "additional_special_tokens": ["[ENC]"],
            "model_input_names": ["input_ids", "attention_mask"],
            "processor_class": "BlipProcessor",
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
