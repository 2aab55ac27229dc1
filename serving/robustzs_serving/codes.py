"""The one table of error codes; the OpenAPI file, the docs and ``GET /v1/errors`` come from it."""

from __future__ import annotations

from typing import Any

CODES: dict[str, tuple[int, str]] = {
    # --- the request as such
    "http-malformed": (400, "what came is no HTTP/1.1 request"),
    "body-malformed": (400, "the body is not the multipart or JSON that it says it is"),
    "field-unknown": (400, "a field that does not exist; the message names the closest one"),
    "field-repeated": (400, "a field that may be there once is there twice"),
    "field-missing": (400, "a field that must be there is not"),
    "usage": (400, "an option is out of range, of the wrong kind, or contradicts another"),
    "url-off": (400, "images by URL are not accepted here"),
    "unauthorized": (401, "no API key, or one that is not known or no longer valid"),
    "origin-refused": (403, "a page of an origin that is not allowed sent this"),
    "scores-withheld": (403, "the service does not give what this would reveal of its scores"),
    "not-found": (404, "nothing is at this path"),
    "model-not-found": (404, "the service has another model than the one that is asked for"),
    "stored-not-found": (404, "nothing is stored under that id, for this key"),
    "method-not-allowed": (405, "the path exists, and not with this method; see `Allow`"),
    "slow-headers": (408, "the request line and the headers came too slowly"),
    "slow-body": (408, "the body came too slowly"),
    "stored-damaged": (409, "what is stored is damaged; put it again, or delete it"),
    "precondition-failed": (412, "what is stored is not what `If-Match` or `If-None-Match` says"),
    "body-too-large": (413, "the body is larger than the service takes"),
    "field-too-large": (413, "one part of the body is larger than the service takes"),
    "too-many-images": (413, "more images than one request may bring"),
    "store-full": (413, "the key has no room left for what it stores"),
    "uri-too-long": (414, "path and query are too long"),
    "media-type": (415, "the content type or encoding of the body is not accepted"),
    "host-refused": (421, "`Host` names a host that the service does not answer for"),
    "headers-too-large": (431, "the headers are too large"),
    # --- images
    "image": (422, "something is wrong with an image"),
    "image-format": (415, "not an image, or of a format that is not accepted"),
    "image-truncated": (422, "the image ends before the picture does"),
    "image-too-large": (413, "the image has more bytes, pixels or frames than allowed"),
    "image-decode": (422, "the content of the image is damaged"),
    "image-source": (422, "the image cannot be read"),
    "image-timeout": (422, "decoding the image took too long"),
    "image-crash": (422, "the image crashed its decoder"),
    "image-url-refused": (422, "the URL leads to no public address, or is not https"),
    "image-url-failed": (422, "the URL gave no image in time"),
    # --- texts and trees
    "label": (422, "the labels are wrong"),
    "label-file": (422, "the labels cannot be read"),
    "label-duplicate": (422, "two labels share an id, a name, a synset or a prompt"),
    "template": (422, "an unknown template set, or a template without a literal {}"),
    "text": (422, "a text to embed is wrong or too long"),
    "hierarchy": (422, "the hierarchy is wrong"),
    "hierarchy-cycle": (422, "a node is its own ancestor"),
    "hierarchy-multiple-roots": (422, "more than one node has no parent"),
    "hierarchy-format": (422, "the hierarchy is not in the published form"),
    "hierarchy-limit": (422, "the hierarchy is too large or too deep"),
    "hierarchy-digest": (422, "the hierarchy is not the one that its digest names"),
    "label-unknown": (422, "WordNet has no noun for a label"),
    "label-ambiguous": (422, "a label has several senses in WordNet"),
    "hierarchy-unknown-node": (422, "no node has that id, name or rank"),
    "label-mismatch": (422, "the leaves of the tree and the labels differ"),
    "calibration": (422, "a target accuracy needs a calibration that the model does not have"),
    "calibration-insufficient": (422, "there is too little data for a calibration"),
    "calibration-mismatch": (422, "the calibration was made for something else"),
    # --- capacity
    "rate-limited": (429, "more requests per second than this key or address may send"),
    "overloaded": (429, "as many requests or bytes as the service holds at once are here already"),
    "queue-full": (429, "as many images as may wait for the model are waiting already"),
    "internal": (500, "the service failed; its log says why, under the request id"),
    "not-ready": (503, "the service is starting, or its model does not work"),
    "backend-unavailable": (503, "the server that runs the model does not answer; ask again"),
    "backend-overloaded": (503, "the server that runs the model has too much waiting; ask again"),
    "backend-timeout": (503, "the server that runs the model took too long; ask again"),
    "backend-mismatch": (503, "the server that runs the model has another one"),
    "shutting-down": (503, "the service is stopping"),
    "store-unavailable": (503, "the disk that label sets are kept on refuses"),
    "deadline": (504, "the request took longer than the service allows"),
}
"""Every code that the service may answer, with its status and what it means."""


def codes_document() -> dict[str, Any]:
    """The table of codes as ``GET /v1/errors`` gives it."""
    return {
        "codes": [
            {"code": code, "status": status, "meaning": meaning}
            for code, (status, meaning) in CODES.items()
        ]
    }
