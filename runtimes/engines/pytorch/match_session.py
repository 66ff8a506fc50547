"""Open an artifact of contract `matching/1` with torch."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.session import MATCH, Capability, Float32, Inputs, Int64
from runtimes.engines.pytorch.blip_matching import BlipMatching
from runtimes.engines.pytorch.session import TorchSession, device_memory, open_as


class TorchMatchSession(TorchSession):
    """Runs the module of a matcher on a torch device; a `MatchSession`. It does not run token by token."""

    capabilities: frozenset[Capability] = MATCH

    @torch.inference_mode()
    def encode(self, inputs: Inputs) -> tuple[list[Tensor], Float32]:  # type: ignore[override]  # another protocol
        """See `MatchSession.encode`; the state is key and value f[B,H,N,Dh] per layer."""
        embeddings, *cross = self._encode(inputs)
        return cross, embeddings.cpu().numpy()

    @torch.inference_mode()
    def embed_texts(self, token_ids: Int64) -> Float32:
        """See `MatchSession.embed_texts`."""
        with self._threads, device_memory():
            embeddings = [self._matcher.embed_texts(part) for part in self._runs(token_ids)]
            return torch.cat(embeddings).cpu().numpy()

    @torch.inference_mode()
    def match(self, token_ids: Int64, state: list[Tensor]) -> Float32:
        """See `MatchSession.match`."""
        with self._threads, device_memory():
            runs = self._runs(token_ids)
            images = [state] if len(runs) == 1 else [[tensor[image : image + 1] for tensor in state] for image in range(len(state[0]))]
            per_image = len(runs) // len(images)
            probabilities = [self._matcher.match(part, images[index // per_image]) for index, part in enumerate(runs)]
            return torch.cat(probabilities).cpu().numpy()

    @property
    def _matcher(self) -> BlipMatching:
        return cast("BlipMatching", self._model)

    def _runs(self, token_ids: Int64) -> list[Tensor]:
        """Return texts i64[R,T] as one run. In INT8, each text is a run of its own, because activations have one scale per run."""
        texts: Any = torch.from_numpy(token_ids).to(self._device)
        return list(texts.split(1)) if self._engine else [texts]


def open_session(files: VerifiedFiles, device: str, threads: int, options: Mapping[str, object]) -> TorchMatchSession:
    """Load the weights of an artifact of contract `matching/1` and open a session; see `open_as` for arguments and errors."""
    return open_as(TorchMatchSession, files, device, threads, options)
