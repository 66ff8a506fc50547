"""Open an artifact of contract `question/1` with torch."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.session import ASKING, Capability, Inputs, Int64
from runtimes.engines.pytorch.blip_vqa import BlipVqa
from runtimes.engines.pytorch.session import TorchSession, TorchState, device_memory, open_as
from runtimes.engines.question_rows import question_runs


class TorchQuestionSession(TorchSession):
    """Runs the module for questions on a torch device."""

    capabilities: frozenset[Capability] = ASKING

    @torch.inference_mode()
    def encode(self, inputs: Inputs) -> list[Tensor]:  # type: ignore[override]  # both types are `State` to callers
        """See `QuestionSession.ask`: key and value f[B,H,N,Dh] per layer of the question encoder."""
        return self._encode(inputs)

    @torch.inference_mode()
    def ask(self, encoded: list[Tensor], images: Int64, question_ids: Int64) -> TorchState:
        """See `QuestionSession.ask`. In INT8, each question is a run of its own, because activations have one scale per run."""
        runs = list(question_runs(images, one_by_one=self._engine is not None))
        with self._threads, device_memory():
            parts = [self._ask(encoded, chosen, question_ids[questions]) for chosen, questions in runs]
            if len(parts) == 1:
                return self._start(parts[0])
            order = torch.from_numpy(np.argsort(np.concatenate([questions for _, questions in runs]))).to(self._device)
            return self._start([torch.cat(layer).index_select(0, order) for layer in zip(*parts, strict=True)])

    def _ask(self, encoded: list[Tensor], images: Int64, question_ids: Int64) -> list[Tensor]:
        ids = torch.from_numpy(question_ids).to(self._device)
        return cast("BlipVqa", self._model).ask(ids, [self._take(value, images) for value in encoded])


def open_session(files: VerifiedFiles, device: str, threads: int, options: Mapping[str, object]) -> TorchQuestionSession:
    """Load the weights of an artifact of contract `question/1` and open a session; see `open_as` for arguments and errors."""
    return open_as(TorchQuestionSession, files, device, threads, options)
