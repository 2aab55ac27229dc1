"""What a deployer may set, read from the environment when the service starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from robustzs.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of one service; each has an environment variable ``ROBUSTZS_<NAME>``.

    Attributes:
        model: Name or folder of the bundle to serve.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        threads: Threads of the engine; 0 for all cores.
        max_body_bytes: Largest request body.
        max_images: Most images in one request.
        max_labels: Most labels in one request.
        body_seconds: Longest that a request may take to send its body.
        max_field_bytes: Largest part that is not an image, such as ``hierarchy``.
        max_classifiers: Label sets and trees kept ready between requests.
        max_concurrency: Requests that are worked on at once; more get a 429.
    """

    model: str = "robustzs-lite"
    device: str = "cpu"
    threads: int = 0
    max_body_bytes: int = 32_000_000
    body_seconds: int = 20
    max_images: int = 16
    max_labels: int = 2_000
    max_field_bytes: int = 2_000_000
    max_classifiers: int = 16
    max_concurrency: int = 8

    @classmethod
    def from_environment(cls) -> ServiceSettings:
        """Read the settings.

        Raises:
            UsageError: a value is not a whole number where one is needed.
        """
        values: dict[str, str | int] = {}
        for field in fields(cls):
            variable = f"ROBUSTZS_{field.name.upper()}"
            text = os.environ.get(variable)
            if text is None:
                continue
            if isinstance(field.default, int):
                if not text.isdecimal():
                    raise UsageError(f"{variable} must be a whole number, got {text!r}")
                values[field.name] = int(text)
            else:
                values[field.name] = text
        return cls(**values)  # type: ignore[arg-type]
