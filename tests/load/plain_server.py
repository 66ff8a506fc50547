"""A plain server for comparison: FastAPI and transformers' FP32 model.

    python plain_server.py CHECKPOINT PORT

It needs an environment with fastapi, uvicorn, torch and transformers, and imports nothing of this project.
"""

import io
import sys
from typing import Annotated

import torch
import uvicorn
from fastapi import Body, FastAPI
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

CHECKPOINT, PORT = sys.argv[1:]
app = FastAPI()
processor = BlipProcessor.from_pretrained(CHECKPOINT, use_fast=False)
model = BlipForConditionalGeneration.from_pretrained(CHECKPOINT).eval()


def generate(content: bytes) -> str:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    with torch.inference_mode():
        ids = model.generate(**processor(image, return_tensors="pt"))
    return processor.decode(ids[0], skip_special_tokens=True)


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"alive": True}


@app.post("/v1/caption")
def caption(content: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, str]:
    return {"caption": generate(content)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(PORT), log_level="error")
