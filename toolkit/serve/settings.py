"""The settings of a server: the artifact, the address and the limits."""

from dataclasses import dataclass, field
from typing import Any

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of what clients can make the server do."""

    max_wait_s: float = 10.0
    """A request is refused while the queued work takes longer."""
    timeout_s: float = 30.0
    """From the first byte of a request to its answer."""
    body_bytes: int = 20 * MEGABYTE
    buffered_bytes: int = 256 * MEGABYTE
    """Bodies of all requests in memory."""
    max_pixels: int = 50_000_000
    """Height * width of an image, read from its header."""
    max_images: int = 16
    """Images of a request."""
    max_rows: int = 16
    """Beams or captions per image, times questions; or texts per image."""
    text_chars: int = 4_096
    """Characters of all options of a request."""
    head_s: float = 10.0
    """Until the head of a request is complete."""
    head_bytes: int = 16_384
    """Request line and headers."""
    connections: int = 512
    """Open connections; above it, the longest idle one is closed."""


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """What the model process loads. The supervisor sends it as its only request."""

    artifact: str
    device: str = "auto"
    threads: int | None = None
    provider_options: dict[str, Any] = field(default_factory=dict)
    max_pixels: int = Limits.max_pixels
    """Set from the limits of the server."""
    max_batch: int = 1
    """Images per run of the model."""
    log_level: int = 30


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may send requests."""

    tokens: tuple[str, ...] = ()
    """Accepted tokens; empty: no token is needed."""
    hosts: tuple[str, ...] = ()
    """Names in the header Host that are accepted besides localhost and IP addresses."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of the ASGI application."""

    job: ModelJob
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
