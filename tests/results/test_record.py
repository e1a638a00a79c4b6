"""A record read back from JSON: the same again, or refused for the field that is damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from results.record import Record
from tests.results import fakes


@pytest.mark.parametrize("one", [fakes.record(), fakes.detection(), fakes.failed()], ids=lambda r: r.status)
def test_a_record_survives_json(one):
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": "10"}, "fields damaged images"),
        ({"images": 10**400}, "fields damaged images"),
        ({"metrics": {"top1": "high"}}, "fields damaged metrics"),
        ({"settings": {"engine": 5}}, "fields damaged settings"),
        ({"status": "fine"}, "fields damaged status"),
        ({"notes": "one text"}, "fields damaged notes"),
        ({"seed": True, "method": None}, "fields damaged method, seed"),
        ({"colour": 1, "\x1b[1m": 2}, "fields unknown \\u001b[1m, colour"),
        ({"outcomes": {"top1": "****"}}, "its outcomes are not those of 10 images"),
        ({"images": 100}, "its outcomes are not those of 100 images"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(ValueError, match="not a record") as error:
        Record.from_json({**fakes.record().to_json(), **change})
    assert str(error.value).endswith(said)


def test_a_record_without_its_fields_is_refused():
    with pytest.raises(ValueError, match=r"fields missing backbone, bits, budget, .*, trial$"):
        Record.from_json({})
    with pytest.raises(ValueError, match=r"^no record"):
        Record.from_json([])


def test_a_protocol_without_an_engine_is_the_whole_model():
    assert fakes.record(protocol={"engine": 5}).quantizes_heads_alike
    assert not fakes.record(protocol={"engine": {"scope": "backbone"}}).quantizes_heads_alike
