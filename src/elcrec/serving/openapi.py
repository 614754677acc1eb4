"""The OpenAPI document, from the types that parse the requests."""

from typing import Any

import msgspec

from elcrec import __version__
from elcrec.config import LimitsConfig
from elcrec.serving import inference, messages

_REFERENCE = "#/components/schemas/{name}"
_BODY_ERRORS = {
    400: "Not JSON",
    401: "The API key is missing or wrong",
    403: "Sent by a page of another origin, or to a host name that the server does not know",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "Outside the schema or the limits",
    503: "Overloaded; try again",
}
_TYPES = {
    "RecommendRequest": messages.RecommendRequest,
    "RecommendResponse": messages.RecommendResponse,
    "SimilarResponse": messages.SimilarResponse,
    "IntentsResponse": messages.IntentsResponse,
    "IntentItemsResponse": messages.IntentItemsResponse,
    "EventsRequest": messages.EventsRequest,
    "EventsResponse": messages.EventsResponse,
    "ErrorResponse": messages.ErrorResponse,
    "InferRequest": inference.InferRequest,
    "InferResponse": inference.InferResponse,
}


def document(limits: LimitsConfig, *, demo: bool) -> dict[str, Any]:
    """Return the OpenAPI document of a server with these limits, with the demo page's data where it is served."""
    _, schemas = msgspec.json.schema_components(_TYPES.values(), ref_template=_REFERENCE)
    _limit(schemas, limits)
    named = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    model = {"parameters": named}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    versioned = {"parameters": [*named, version]}
    missing = {404: "No model of that name or version"}
    typed = {415: "Not sent as application/json"}
    recommend = _operation("Recommend for a user, or for a history", "RecommendResponse", body="RecommendRequest")
    events = _operation(
        "Append events; the next recommendation uses them", "EventsResponse", body="EventsRequest", also=typed
    )
    infer = _operation("Recommend for several users, as tensors", "InferResponse", body="InferRequest", also=missing)
    paths: dict[str, Any] = {
        "/recommend": {"post": recommend},
        "/events": {"post": events},
        **_browsing(limits),
        "/v2": {"get": _operation("The server")},
        "/v2/health/live": {"get": _operation("Whether the process is alive")},
        "/v2/health/ready": {"get": _operation("Whether it takes requests")},
        "/v2/models/{name}": model | {"get": _operation("The model's tensors", also=missing)},
        "/v2/models/{name}/ready": model | {"get": _operation("Whether the model is ready", also=missing)},
        "/v2/models/{name}/infer": model | {"post": infer},
        "/v2/models/{name}/versions/{version}": versioned | {"get": _operation("The model's tensors", also=missing)},
        "/v2/models/{name}/versions/{version}/ready": versioned
        | {"get": _operation("Whether the version is ready", also=missing)},
        "/v2/models/{name}/versions/{version}/infer": versioned | {"post": infer},
        "/metrics": {"get": {"summary": "Prometheus metrics", "responses": {200: _described("text/plain", {})}}},
    }
    if demo:
        paths["/demo/users"] = {"get": _operation("Users that the demo page offers")}
    information = {"title": "ELCRec", "version": __version__, "description": "Intent-aware recommendations."}
    key = {"key": {"type": "http", "scheme": "bearer", "description": "Needed if the server was started with a key."}}
    components = {"schemas": schemas, "securitySchemes": key}
    # The empty requirement beside the key says that the key is optional: a server may be started without one.
    return {
        "openapi": "3.1.0",
        "info": information,
        "paths": paths,
        "components": components,
        "security": [{}, {"key": []}],
    }


def _browsing(limits: LimitsConfig) -> dict[str, Any]:
    """Return the paths of answers that concern no user."""
    unknown = {404: "The model does not know it", 422: "Outside the limits"}
    most = {"type": "integer", "minimum": 1, "maximum": limits.k, "default": messages.DEFAULT_K}
    k = {"name": "k", "in": "query", "schema": most}
    kind = {"name": "kind", "in": "query", "schema": {"enum": ["next", "near"], "default": "next"}}
    item, index = (
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("item_id", "index")
    )
    similar = _operation("Items like an item: those that follow it, or those near it", "SimilarResponse", also=unknown)
    items = _operation("The most popular items of an intent", "IntentItemsResponse", also=unknown)
    return {
        "/items/{item_id}/similar": {"parameters": [item, kind, k], "get": similar},
        "/intents": {"get": _operation("The intents of the model", "IntentsResponse")},
        "/intents/{index}/items": {"parameters": [index, k], "get": items},
    }


def _operation(
    summary: str, answer: str | None = None, *, body: str | None = None, also: dict[int, str] | None = None
) -> dict[str, Any]:
    errors = {**(_BODY_ERRORS if body else {}), **(also or {})}
    responses = {200: _described("application/json", _named(answer) if answer else {"type": "object"})}
    responses |= {
        status: _described("application/json", _named("ErrorResponse"), text) for status, text in errors.items()
    }
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _named(body)}}}
    return operation


def _described(media_type: str, schema: dict[str, Any], text: str = "Success") -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _named(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=name)}


def _limit(schemas: dict[str, Any], limits: LimitsConfig) -> None:
    """Write the configured limits, and whatever a type cannot express, into the schemas."""
    asked = schemas["RecommendRequest"]
    asked["anyOf"] = [{"required": ["user_id"]}, {"required": ["history"]}]
    asked["properties"]["k"]["maximum"] = limits.k
    asked["properties"]["history"]["maxItems"] = limits.history
    filters = schemas["Filters"]["properties"]
    for name in ("allow", "deny", "categories", "deny_categories"):
        filters[name]["maxItems"] = limits.filter_ids
    schemas["EventsRequest"]["properties"]["events"]["maxItems"] = limits.events
