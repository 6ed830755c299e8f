"""What can be asked of a server, as OpenAPI 3.1 and as a page, from the model's signature.

Source: OpenAPI Specification 3.1.0; MLflow documentation, "Model Signatures" and "Local Inference
Server Specification".
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string"},
}
_PAGES = {
    "/ping": ("Whether requests are welcome", {"200": "They are", "503": "They are not"}),
    "/health": ("Whether it is alive", {"200": "It is", "503": "No worker is left"}),
    "/version": ("MLflow's version", {"200": "The version"}),
    "/bundle": ("Which bundle is served", {"200": "Its names"}),
    "/metrics": ("Metrics for Prometheus", {"200": "Metrics"}),
}
_ERRORS = {
    "400": "The request does not fit, or the model refuses it",
    "413": "The body is too large",
    "415": "The media type is not supported",
    "500": "The model's answer cannot be sent",
    "503": "The server is busy; Retry-After says for how long",
    "504": "The prediction takes too long",
}


def openapi(
    model_name: str, signature: Mapping[str, Any] | None, example: str | None
) -> dict[str, Any]:
    """Returns the description of a server, as OpenAPI.

    Args:
        model_name: Of the model.
        signature: MLflow's, as it stands in MLmodel; None for a model without one.
        example: The body of a request that is answered; None where there is none.
    """
    json_body: dict[str, Any] = {"schema": _body(_columns(signature, "inputs"), signature)}
    if example is not None:
        json_body["example"] = _parsed(example)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {
        status: {"description": words, "content": error} for status, words in _ERRORS.items()
    }
    predictions = {"type": "object", "properties": {"predictions": _outputs(signature)}}
    answers["200"] = {
        "description": "The predictions",
        "content": {"application/json": {"schema": predictions}},
    }
    # MLflow's servers say these two as text.
    for status, kind in (("415", "text/plain"), ("504", "application/json")):
        answers[status]["content"] = {**answers[status]["content"], kind: {}}
    post = {
        "summary": f"Predict with {model_name}",
        "operationId": "invocations",
        "requestBody": {
            "required": True,
            "content": {"application/json": json_body, "text/csv": {}},
        },
        "responses": dict(sorted(answers.items())),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": model_name, "version": "1"},
        "paths": {"/invocations": {"post": post}, **{path: _page(path) for path in _PAGES}},
        "components": {"schemas": {"Error": _ERROR}},
    }


def page(description: Mapping[str, Any]) -> str:
    """Returns a page for people that shows a description; it loads nothing from elsewhere."""
    title = html.escape(str(description["info"]["title"]))
    post = description["paths"]["/invocations"]["post"]
    body = post["requestBody"]["content"]["application/json"]
    example = html.escape(json.dumps(body.get("example", {}), indent=1))
    schema = html.escape(json.dumps(body["schema"], indent=1))
    rows = "".join(
        f"<tr><td>{method.upper()} {path}</td><td>{html.escape(operation['summary'])}</td></tr>"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"
        f"<table>{rows}</table><p><a href=openapi.json>openapi.json</a></p>"
        f"<h2>A request</h2><pre>{example}</pre><h2>What a request holds</h2><pre>{schema}</pre>"
    )


_ERROR = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}


def _page(path: str) -> dict[str, Any]:
    summary, answers = _PAGES[path]
    responses = {status: {"description": words} for status, words in answers.items()}
    return {"get": {"summary": summary, "responses": responses}}


def _columns(signature: Mapping[str, Any] | None, part: str) -> list[Mapping[str, Any]]:
    value = (signature or {}).get(part)
    columns = _parsed(value) if isinstance(value, str) else value
    return [one for one in columns if isinstance(one, dict)] if isinstance(columns, list) else []


def _body(columns: list[Mapping[str, Any]], signature: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the schema of a request: exactly one of MLflow's forms, and parameters."""
    row = _row(columns)
    names = [str(column["name"]) for column in columns if "name" in column]
    split: dict[str, Any] = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    if names:
        split["properties"]["columns"]["examples"] = [names]
    forms = {
        "dataframe_split": split,
        "dataframe_records": {"type": "array", "items": row},
        "instances": {"type": "array"},
        "inputs": {},
    }
    params = {
        str(param["name"]): _typed(param.get("type")) | {"default": param.get("default")}
        for param in _columns(signature, "params")
    }
    return {
        "type": "object",
        "properties": {**forms, "params": {"type": "object", "properties": params}},
        "oneOf": [{"required": [form]} for form in forms],
    }


def _row(columns: list[Mapping[str, Any]]) -> dict[str, Any]:
    named = [column for column in columns if "name" in column]
    return {
        "type": "object",
        "properties": {str(column["name"]): _typed(column.get("type")) for column in named},
        "required": [str(column["name"]) for column in named if column.get("required", True)],
    }


def _outputs(signature: Mapping[str, Any] | None) -> dict[str, Any]:
    columns = _columns(signature, "outputs")
    if len(columns) == 1 and "name" not in columns[0]:
        return {"type": "array", "items": _typed(columns[0].get("type"))}
    return {"type": "array", "items": _row(columns)} if columns else {}


def _typed(kind: object) -> dict[str, Any]:
    return dict(_TYPES.get(str(kind), {}))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
