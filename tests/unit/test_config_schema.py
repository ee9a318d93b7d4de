"""The JSON schema and docs/reference.md say what the models say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploykit.agent.values import Redis
from deploykit.config import loads, models
from deploykit.config.reference import reference
from deploykit.config.schema import schema

ROOT = Path(__file__).parents[2]
MODELS = [each for each in vars(models).values() if dataclasses.is_dataclass(each) and isinstance(each, type)]


def test_every_key_is_described() -> None:
    for model in MODELS:
        for each in dataclasses.fields(model):
            assert each.metadata["description"] and each.metadata["allowed"], (model, each.name)
            assert each.metadata["description"].endswith(".") or model is models.Document or model is models.FromEnv


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return json.loads(json.dumps(schema()))  # type: ignore[no-any-return]


def test_the_schema_has_every_key_and_no_other(made: dict[str, Any]) -> None:
    for model in MODELS:
        node = made if model is models.Document else made["definitions"][model.__name__]
        assert set(node["properties"]) == {each.name for each in dataclasses.fields(model)}
        assert node["additionalProperties"] is False
        assert all(each.get("description") for each in node["properties"].values())
    assert made["definitions"]["AppTable"]["required"] == ["domains"]


def test_the_schema_speaks_toml(made: dict[str, Any]) -> None:
    text = json.dumps(made)
    assert '"null"' not in text and "$defs" not in text and '"title": "Address"' not in text
    for name in re.findall(r'"#/definitions/(\w+)"', text):
        assert name in made["definitions"]
    assert made["definitions"]["HostTable"]["properties"]["roles"]["items"]["enum"] == ["web", "database", "cache"]
    assert made["definitions"]["AppTable"]["properties"]["port"]["minimum"] == 1024


def test_the_reference_is_current() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == reference(), "run: python -m deploykit.config.reference > docs/reference.md"


def test_examples_of_the_reference_are_accepted() -> None:
    lines = {
        each.name: f"{each.name} = {each.metadata['example']}"
        for each in dataclasses.fields(models.AppTable)
        if each.metadata["example"]
    }
    for name in ("wsgi", "port", "install"):  # exclude others
        del lines[name]
    hosts = [
        f"{each.name} = {each.metadata['example']}"
        for each in dataclasses.fields(models.HostTable)
        if each.metadata["example"] and each.name != "vagrant"  # instead of address and port
    ]
    hosts += ["[hosts.web2]", f"vagrant = {models.HostTable.__dataclass_fields__['vagrant'].metadata['example']}"]
    project = loads("\n".join(["[hosts.web1]", *hosts, "[apps.blog]", *lines.values()]), Path("/x/deploykit.toml"))
    assert project.apps[0].redis == Redis() and len(project.apps[0].env) == 2
