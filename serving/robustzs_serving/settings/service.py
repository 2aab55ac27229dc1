"""The settings of one service."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from robustzs.backends.triton.target import TritonTarget
from robustzs.bundle.manifest import Precision
from robustzs.errors import UsageError
from robustzs_serving.settings.environment import read_environment
from robustzs_serving.settings.limits import Batching, Limits
from robustzs_serving.settings.scores import ScorePolicy
from robustzs_serving.settings.triton import TritonSettings


class ServiceSettings(BaseModel):
    """Everything that a deployer may set.

    Each field but the groups is set by ``ROBUSTZS_`` and its name in capitals; those of ``limits``
    likewise, those of ``batching`` by ``ROBUSTZS_BATCH_``, of ``triton`` by ``ROBUSTZS_TRITON_``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field("robustzs-lite", description="name or folder of the bundle")
    device: str = Field("cpu", description="`cpu`, `cuda`, `cuda:N` or `auto`")
    threads: Annotated[int, Field(ge=0, le=1_024)] = Field(
        0, description="of the engine; 0 for the cores that the process may use"
    )
    image_precision: Precision | None = Field(
        None,
        description="variant of the image encoder: `fp32`, `int8`, ...; by default the bundle's",
    )
    backend: Literal["onnx", "triton"] = Field(
        "onnx", description="`onnx` runs the model here, `triton` at `ROBUSTZS_TRITON_URLS`"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(3000, description="port to listen on")
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="processes, each with its own model"
    )
    decoders: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="processes that decode images, for each worker"
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        256_000_000, description="classifiers kept ready in a process"
    )
    warm: tuple[Literal["wordnet", "wordnet-nouns", "flat"], ...] = Field(
        (),
        description="trees whose texts are encoded before requests are taken: `wordnet` (1,000), "
        "`wordnet-nouns` (25,000), `flat`",
    )
    store_dir: Path | None = Field(
        None,
        description="folder of stored label sets and hierarchies; by default "
        "`$XDG_DATA_HOME/robustzs/stored`",
    )
    keys_file: Path | None = Field(
        None, description="file of `robustzs keys`; without it no key is asked for"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="names in `Host` that are answered; without it any, and only local names on "
        "the loopback address",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins, such as `https://app.example`, whose pages may call; `*` for all"
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="addresses or networks of proxies whose `X-Forwarded-For` is believed; without "
        "it uvicorn's `FORWARDED_ALLOW_IPS`, and without that nobody's",
    )
    urls: bool = Field(False, description="accept images by URL")
    scores: str = Field("full", description="`full`, `rounded:N` or `withheld`")
    trace_endpoint: str | None = Field(None, description="OTLP over HTTP; no traces without")
    log_format: Literal["json", "text"] = Field("json", description="of the log lines")
    limits: Limits = Limits()
    batching: Batching = Batching()
    triton: TritonSettings = TritonSettings()

    @model_validator(mode="after")
    def _servers(self) -> ServiceSettings:
        try:
            self.triton_target  # noqa: B018 (the target checks itself)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if self.backend == "triton" and (self.device != "cpu" or self.threads):
            raise ValueError("device and threads are the Triton server's own: leave them out")
        return self

    @field_validator("scores")
    @classmethod
    def _scores(cls, value: str) -> str:
        try:
            ScorePolicy.parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, mark, rest = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not mark or "/" in rest):
                raise ValueError(f"{origin!r} is no origin, such as https://app.example")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"{proxy!r} is no address or network, such as 10.0.0.7 or 10.0.0.0/24"
                ) from error
        return value

    @property
    def triton_target(self) -> TritonTarget | None:
        """The Triton servers, where the model runs on them.

        Raises:
            UsageError: they are not named, or not as they must be.
        """
        if self.backend != "triton":
            return None
        return TritonTarget(**self.triton.model_dump(exclude={"in_flight"}))

    @property
    def urls_on(self) -> bool:
        """Whether images are accepted by URL."""
        return self.urls

    @property
    def score_policy(self) -> ScorePolicy:
        """``scores``, read."""
        return ScorePolicy.parse(self.scores)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> ServiceSettings:
        """Read the settings.

        Raises:
            UsageError: a variable has a wrong value, or a name that is almost one of ours.
        """
        values, names = read_environment(environ, cls)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _explained(error, environ, names) from error


def _explained(
    error: ValidationError, environ: Mapping[str, str], names: Mapping[tuple[str, ...], str]
) -> UsageError:
    """All that is wrong, by variable, value and remedy."""
    found = []
    for detail in error.errors(include_url=False, include_input=False):
        place = tuple(str(step) for step in detail["loc"] if not isinstance(step, int))
        variable = names.get(place)
        message = detail["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if variable is None:  # two variables that do not fit each other
            found.append(message)
        else:
            found.append(f"{variable} is {environ.get(variable, '')[:80]!r}: {message}")
    return UsageError(
        "; ".join(found), hint="the variables and their bounds are in docs/service-limits.md"
    )
