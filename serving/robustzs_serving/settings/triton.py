"""Where the Triton servers are, if the model runs there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from robustzs.backends.triton.target import Address
from robustzs.errors import UsageError


class TritonSettings(BaseModel):
    """Servers for `ROBUSTZS_BACKEND=triton`; set by ``ROBUSTZS_TRITON_`` and the field's name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    urls: tuple[str, ...] = Field(
        (),
        description="`grpc://host:port`, `grpcs`, `http` or `https`; the first that works is used",
    )
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        10.0, description="a batch may take on one server; 503 above, where no other has it either"
    )
    in_flight: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="batches on the way to the servers at once, for each worker"
    )
    ca_file: Path | None = Field(
        None, description="PEM file to check their certificates with; else the system's"
    )
    cert_file: Path | None = Field(None, description="PEM file of a certificate to show them")
    key_file: Path | None = Field(None, description="PEM file of its private key")

    @field_validator("urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            try:
                Address.parse(url)
            except UsageError as error:
                raise ValueError(str(error)) from error
        return value
