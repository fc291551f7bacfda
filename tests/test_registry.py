"""The catalogues' names, descriptions and ways to write an entry down."""

from __future__ import annotations

import json

import pytest

from badnets.attacks.badnets import BadNets
from badnets.core import registry
from badnets.core.config import Config, canonical
from badnets.core.errors import UsageError
from badnets.triggers.patch import Patch


class TestNames:
    def test_are_files_sorted_without_the_private_ones(self):
        assert registry.names("triggers") == tuple(sorted(registry.names("triggers")))
        assert {"patch", "blend", "sinusoid", "painted"} <= set(registry.names("triggers"))
        for catalogue in registry.catalogues():
            assert registry.names(catalogue)
            assert not [name for name in registry.names(catalogue) if name.startswith("_")]

    def test_singular_folders_are_machinery(self):
        assert not {"core", "train", "measure", "report", "cli"} & set(registry.catalogues())

    def test_description_is_the_first_line(self):
        assert registry.describe("triggers", "patch") == (
            "A small square at a fixed place: plain colour or checkerboard, opaque or translucent; the BadNets trigger."
        )


class TestNearest:
    @pytest.mark.parametrize(("typed", "meant"), [("patsch", "patch"), ("pach", "patch"), ("Blend", "blend"), ("sinus", "sinusoid")])
    def test_a_slip_of_the_pen(self, typed, meant):
        with pytest.raises(UsageError) as caught:
            registry.check("triggers", typed)
        assert caught.value.code == "E-NAME"
        assert caught.value.hint == f"Did you mean {meant!r}?"

    def test_nothing_near_lists_all(self):
        assert registry.nearest("zzzz", ("a", "b")) == "Known: a, b."

    @pytest.mark.parametrize("name", ["", "_base", "../triggers/patch", "patch.py", "x" * 10_000, "a\nb"])
    def test_no_name_escapes_the_folder_or_the_line(self, name):
        with pytest.raises(UsageError, match="E-NAME") as caught:
            registry.parse("triggers", name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


class TestParse:
    def test_itself(self):
        one = Patch(size=4)
        assert registry.parse("triggers", one) is one

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("patch", Patch()),
            ("patch:", Patch()),
            ("patch:size=5", Patch(size=5)),
            ("patch:size=5,opacity=0.5,corner=top_left", Patch(size=5, opacity=0.5, corner="top_left")),
            ("patch: size = 5 , dx=-1,", Patch(size=5, dx=-1)),
            ("patch:pattern='random',pattern_seed=3", Patch(pattern="random", pattern_seed=3)),
        ],
    )
    def test_text(self, text, expected):
        assert registry.parse("triggers", text) == expected

    def test_mapping(self):
        assert registry.parse("triggers", {"kind": "patch", "size": 5, "colour": [255, 0, 0]}) == Patch(size=5, colour=(255, 0, 0))

    @pytest.mark.parametrize("value", [None, 5, ["patch"], {"size": 3}, {"kind": 3}, b"patch"])
    def test_neither(self, value):
        with pytest.raises(UsageError, match=r"E-CONFIG expected an entry of triggers \(a name or a mapping with 'kind'\), got "):
            registry.parse("triggers", value)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("patch:size", r"E-CONFIG expected field=value, got 'size'\."),
            ("patch:size=0", r"E-CONFIG Patch\.size: .*, got 0\."),
            ("patch:size=big", r"E-CONFIG Patch\.size: .*, got 'big'\."),
            ("patch:sise=5", r"E-CONFIG Patch\.sise: .*, got 5\."),
            ("patch:opacity=1e999", r"E-CONFIG Patch\.opacity"),
            ("patch:kind=blend", r"E-CONFIG Patch\.kind: .*, got 'blend'\."),
        ],
    )
    def test_wrong_text(self, text, expected):
        with pytest.raises(UsageError, match=expected) as caught:
            registry.parse("triggers", text)
        assert "\n" not in str(caught.value)

    def test_values_are_data_never_code(self):
        with pytest.raises(UsageError):
            registry.parse("triggers", "patch:size=__import__('os').getpid()")

    def test_an_entry_inside_an_entry(self):
        attack = registry.parse("attacks", {"kind": "badnets", "trigger": "patch:size=5"})
        assert attack == BadNets(trigger=Patch(size=5))

    @pytest.mark.parametrize("catalogue", [c for c in registry.catalogues() if c != "plans"])
    def test_every_entry_that_needs_nothing_survives_json(self, catalogue):
        for name in registry.names(catalogue):
            kind = registry.entry(catalogue, name)
            if all(not field.is_required() for field in kind.model_fields.values()):
                one = registry.parse(catalogue, name)
                assert isinstance(one, Config)
                assert registry.parse(catalogue, json.loads(canonical(one))) == one

    def test_plans_are_functions_that_need_nothing(self):
        for name in registry.names("plans"):
            plan = registry.entry("plans", name)()
            assert plan.name == name
            assert {claim.partition(":")[0] for claim in plan.claims} <= set(registry.names("claims"))


def test_commas_in_brackets_do_not_separate_fields():
    assert registry.fields("size=3,colour=(255,0,0)") == {"size": 3, "colour": (255, 0, 0)}
    assert registry.fields("mapping={1: 2, 3: 4},rate=0.05") == {"mapping": {1: 2, 3: 4}, "rate": 0.05}
