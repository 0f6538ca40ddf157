"""The contract as data: what a request may hold, and which errors there are.

``contract`` takes its keys and its bounds from here, and the OpenAPI document is drawn from here,
so that what validates and what is documented cannot differ. Standard library only; JSON Schema
2020-12, which is that of OpenAPI 3.1.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

Schema = Dict[str, Any]

HEALTH, OPENAPI, PAGE = "/health", "/openapi.json", "/"
"""The API's routes beside the one that classifies."""

FIELDS: Mapping[str, Schema] = {
    "text": {"type": "string", "description": "The text to classify; a blank one counts."},
    "texts": {
        "type": "array",
        "minItems": 1,
        "maxItems": 1_000,
        "items": {"type": "string"},
        "description": "Texts to classify, answered in order. An item that is no string is "
        "answered with an error in its place, and its neighbours all the same.",
    },
    "top_k": {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "How many probabilities to answer, the most probable first.",
    },
}
"""The keys of a request."""

REQUEST: Schema = {
    "type": "object",
    "properties": dict(FIELDS),
    "additionalProperties": False,
    "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
}
"""A request as JSON."""

MAX_TEXTS: int = FIELDS["texts"]["maxItems"]
LEAST_TOP_K: int = FIELDS["top_k"]["minimum"]

ERRORS: Mapping[int, Tuple[Tuple[str, str], ...]] = {
    400: (
        ("invalid_json", "the body is not JSON, or not text in its charset"),
        ("bad_request", "the request is not well-formed HTTP"),
    ),
    401: (("unauthorized", "no token, or an invalid one"),),
    403: (("forbidden", "no key, or one that is not this API's; or a foreign Host or Origin"),),
    404: (("not_found", "there is no such route"),),
    405: (("method_not_allowed", "the route exists, the method does not"),),
    408: (("timeout", "the request did not arrive whole"),),
    413: (("too_large", "the body, the answer or the number of texts is above the limit"),),
    415: (("unsupported_media_type", "a content type or charset that is not of the contract"),),
    422: (("invalid_request", "JSON, but not a request"),),
    429: (
        ("throttled", "above the rate"),
        ("quota_exceeded", "above the quota of the key"),
    ),
    431: (("headers_too_large", "the request line and the headers are above the limit"),),
    500: (
        ("internal", "a defect"),
        ("model_error", "the model failed on this request"),
    ),
    503: (
        ("overloaded", "too much at once"),
        ("not_ready", "the model is not up"),
    ),
    504: (("timeout", "no answer in time, or the body did not arrive in time"),),
}
"""Each status of an error, with its codes and what they mean."""
