"""What must hold before a process takes requests, and keep holding while it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """The checks behind ``/readyz``; all must hold.

    Attributes:
        model_verified: Every file of the bundle was read and has the digest on record.
        warmed_up: The model ran once at every padded batch size.
        provider_as_asked: The execution provider is the one that ``device`` asked for.
        decoders_alive: At least one decode process takes work.
        backend_answers: Where the model runs on Triton servers, one of them has it, ready.
        accepting: The service is not shutting down.
    """

    model_verified: bool = False
    warmed_up: bool = False
    provider_as_asked: bool = False
    decoders_alive: bool = False
    backend_answers: bool = True
    accepting: bool = True

    @property
    def ready(self) -> bool:
        """All checks hold."""
        return all(self.checks().values())

    def checks(self) -> dict[str, bool]:
        """Each check by its name."""
        return asdict(self)

    def missing(self) -> list[str]:
        """Names of the checks that do not hold."""
        return [name for name, holds in self.checks().items() if not holds]
