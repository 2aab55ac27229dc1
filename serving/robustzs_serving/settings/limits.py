"""Every limit of the service, with its bounds and its reason."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Limits(_Frozen):
    """What one request, one client and one process may ask for; each worker process counts alone.

    Each field is set by ``ROBUSTZS_`` and its name in capitals.
    """

    # --- the request as bytes
    max_body_bytes: _Count = Field(
        32_000_000, description="request body, as its header says and as it arrives; 413 above"
    )
    max_buffered_bytes: _Count = Field(
        512_000_000, description="bodies held at once, of all requests together; 429 above"
    )
    body_seconds: _Seconds = Field(60.0, description="waiting for one body in all; 408 above")
    body_grace_seconds: _Seconds = Field(
        5.0, description="waiting for one body before the least rate counts; 408 above"
    )
    min_body_rate: _Count = Field(
        2_000, description="least bytes per second of a body, after the grace; 408 below"
    )
    max_header_bytes: Annotated[int, Field(ge=1_024, le=65_536)] = Field(
        32_768, description="names and values of all headers; 431 above"
    )
    max_target_bytes: Annotated[int, Field(ge=64, le=65_536)] = Field(
        4_096, description="path and query; 414 above"
    )
    max_field_bytes: _Count = Field(
        4_000_000, description="a multipart part that is not an image; 413 above"
    )
    max_json_values: _Count = Field(
        500_000, description="commas and brackets of a JSON document, counted before it is parsed"
    )
    max_json_depth: Annotated[int, Field(ge=4, le=200)] = Field(
        32, description="nesting of a JSON document"
    )

    # --- connections
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1_000, description="open at once in a process, busy or not; 429 above"
    )
    header_seconds: _Seconds = Field(
        10.0, description="from a request's first byte to the end of its headers; 408 above"
    )
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        5, description="an idle connection is kept open (`robustzs serve`)"
    )
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        30, description="at a stop, for what was accepted to finish (`robustzs serve`)"
    )

    # --- images
    max_images: Annotated[int, Field(ge=1, le=1_024)] = Field(
        32, description="images in one request; 413 above"
    )
    max_image_bytes: _Count = Field(
        16_000_000, description="one encoded image; that image fails with 413 above"
    )
    max_pixels: _Count = Field(
        50_000_000,
        description="width times height, known before anything is decoded; that image fails "
        "with 413 above",
    )
    decode_seconds: _Seconds = Field(
        5.0, description="decoding one image; its decoder is killed and that image fails with 422"
    )

    # --- texts
    max_labels: _Count = Field(2_000, description="labels in one request; 422 above")
    max_label_chars: Annotated[int, Field(ge=1, le=512)] = Field(
        512, description="characters of a name, prompt, id, alias or template; 422 above"
    )
    max_prompts: _Count = Field(
        20_000,
        description="labels, or nodes where the strategy compares them, times templates; 422 "
        "above. A built-in tree with the model's own templates is not counted",
    )
    max_texts: _Count = Field(256, description="texts in one request to /v1/embed; 422 above")
    max_text_chars: Annotated[int, Field(ge=1)] = Field(
        2_000, description="characters of a text to embed; 422 above"
    )
    max_trees: Annotated[int, Field(ge=1, le=64)] = Field(
        5, description="trees of a forest; 422 above"
    )
    max_tree_nodes: _Count = Field(5_000, description="nodes of a tree that is sent; 422 above")
    max_tree_depth: Annotated[int, Field(ge=1, le=1_000)] = Field(
        32, description="edges from root to leaf of a tree that is sent; 422 above"
    )

    # --- time, rate and room
    request_seconds: _Seconds = Field(
        60.0, description="a request in all, its body included; 504 above"
    )
    max_concurrency: _Count = Field(
        256, description="requests worked on at once in a process; 429 above"
    )
    queue_rows: _Count = Field(
        512, description="images that wait for the model in a process; 429 above"
    )
    requests_per_second_per_key: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1_000.0,
        description="of a key, or of an address where there are no keys (IPv6: its /64); 429 "
        "above; 0 for no limit",
    )
    burst_per_key: _Count = Field(
        2_000, description="requests that may come at once before the rate counts"
    )
    max_rate_entries: Annotated[int, Field(ge=16)] = Field(
        65_536, description="keys or addresses whose rate is remembered; the oldest is forgotten"
    )
    stored_bytes_per_key: Annotated[int, Field(ge=0)] = Field(
        64_000_000, description="stored label sets and hierarchies of one key; 413 above"
    )

    # --- images by URL (off unless ROBUSTZS_URLS is on)
    url_seconds: _Seconds = Field(
        5.0, description="fetching one image by URL in all, redirects included; it fails with 422"
    )
    max_url_chars: Annotated[int, Field(ge=16, le=65_536)] = Field(
        2_048, description="characters of a URL; 400 above"
    )
    max_redirects: Annotated[int, Field(ge=0, le=10)] = Field(
        3, description="redirects of one fetch, each checked like the first address"
    )

    @model_validator(mode="after")
    def _agree(self) -> Limits:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_buffered_bytes is {self.max_buffered_bytes}, less than one body of "
                f"max_body_bytes {self.max_body_bytes}"
            )
        return self


class Batching(_Frozen):
    """How batches form. Each field is set by ``ROBUSTZS_BATCH_`` and its name in capitals."""

    max_rows: Annotated[int, Field(ge=1, le=1_024)] = Field(
        16, description="images in one call of the model"
    )
    wait_ms: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)] = Field(
        2.0, description="milliseconds that the first image of a batch waits for others"
    )
    buckets: tuple[Annotated[int, Field(ge=1, le=1_024)], ...] = Field(
        (1, 2, 4, 8, 16),
        description="batch sizes that a batch is padded to, all warmed at the start; the last is "
        "ROBUSTZS_BATCH_MAX_ROWS",
    )
    lanes: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="calls of the model at once, among which ROBUSTZS_THREADS are divided; 0 for 2 "
        "on a CPU with more than one thread, and 1 elsewhere",
    )

    @model_validator(mode="after")
    def _agree(self) -> Batching:
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets must grow, such as 1,2,4,8,16, not {list(self.buckets)}")
        if self.buckets[-1] != self.max_rows:
            raise ValueError(
                f"the last of buckets is {self.buckets[-1]} and max_rows is {self.max_rows}: "
                "they must be equal"
            )
        return self
