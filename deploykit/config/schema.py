"""The JSON schema of deploykit.toml, so that editors complete and check it (taplo, Even Better TOML)."""

from __future__ import annotations

import dataclasses
from typing import Any

from deploykit.config import models

#: Draft 7, the newest that TOML editors read.
_DRAFT = "http://json-schema.org/draft-07/schema#"


def schema() -> dict[str, Any]:
    """The schema, made by pydantic from `models`. Only here is pydantic imported."""
    from pydantic import TypeAdapter

    made = TypeAdapter(models.Document).json_schema(ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    _tidy(made)
    _tidy(definitions)
    properties = definitions["AppTable"]["properties"]
    for each in dataclasses.fields(models.AppTable):  # pydantic loses it beside a default that is a table
        properties[each.name].setdefault("description", each.metadata["description"])
    ways = (["source"], ["settings", "packages"], ["settings", "install"])
    definitions["AppTable"]["anyOf"] = [{"required": way} for way in ways]
    made["properties"]["apps"]["propertyNames"] = {"pattern": "^[a-z][a-z0-9-]{0,30}$"}
    made["properties"]["hosts"]["propertyNames"] = {"pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"}
    properties["env"]["propertyNames"] = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
    for kind in ("domains", "redirects"):
        properties[kind]["uniqueItems"] = True
    properties["domains"]["minItems"] = 1
    return {"$schema": _DRAFT, "title": "deploykit.toml", **made, "definitions": definitions}


def _tidy(node: Any) -> None:
    """TOML has no null, our tables no further keys, and generated titles only repeat the key."""
    if isinstance(node, list):
        for each in node:
            _tidy(each)
    elif isinstance(node, dict):
        for each in node.values():
            _tidy(each)
        options = node.get("anyOf")
        if isinstance(options, list):
            left = [option for option in options if option != {"type": "null"}]
            node["anyOf"] = left
            if len(left) == 1:
                del node["anyOf"]
                node.update(left[0])
        if "default" in node and node["default"] is None:
            del node["default"]
        if isinstance(node.get("title"), str):
            del node["title"]
        if isinstance(node.get("properties"), dict):
            node["additionalProperties"] = False
