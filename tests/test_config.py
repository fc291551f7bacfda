"""Configuration: frozen, checked, one line when wrong, one canonical text in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import Field

from badnets.attacks.badnets import BadNets
from badnets.core.config import Config, canonical, key_of
from badnets.core.errors import BadnetsError, PartialError, RefusedError, StoreError, UsageError
from badnets.triggers.patch import Patch


class Sample(Config):
    size: int = Field(3, ge=1)
    share: float = 0.5
    name: str = "x"


class TestConfig:
    def test_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            Sample().size = 4

    def test_keyword_only(self):
        with pytest.raises(TypeError):
            Sample(3)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"size": 0}, "E-CONFIG Sample.size: Input should be greater than or equal to 1, got 0."),
            ({"sice": 1}, "E-CONFIG Sample.sice: there is no such field, got 1."),
            ({"size": 2.5}, "got 2.5"),
            ({"size": "two"}, "got 'two'"),
            ({"share": float("nan")}, "got nan"),
            ({"share": float("inf")}, "got inf"),
            ({"size": None}, "got None"),
            ({"name": "a" * 1000, "size": 0}, "Sample.size"),
        ],
    )
    def test_errors_are_one_line_with_the_offending_value(self, fields, message):
        with pytest.raises(UsageError) as caught:
            Sample(**fields)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 2

    def test_long_values_are_cut(self):
        with pytest.raises(UsageError) as caught:
            Sample(size="9" * 5000 + "x")
        assert len(str(caught.value)) < 300

    def test_two_faults_are_both_told(self):
        with pytest.raises(UsageError, match=r"Sample\.size.*; Sample\.share"):
            Sample(size=0, share="half")

    def test_but_changes_a_copy_and_checks_it(self):
        one = Sample()
        assert one.but(size=5) == Sample(size=5)
        assert one == Sample()
        with pytest.raises(UsageError, match="E-CONFIG"):
            one.but(size=0)
        with pytest.raises(UsageError, match="E-CONFIG"):
            one.but(sice=3)

    def test_but_keeps_nested_configs(self):
        attack = BadNets(trigger=Patch(size=7), mapping={1: 2})
        assert attack.but(rate=0.2).trigger == Patch(size=7)
        assert attack.but(rate=0.2).mapping == {1: 2}
        assert attack.but() == attack


class TestCanonical:
    def test_sorted_without_spaces_and_ascii(self):
        assert canonical({"b": 1, "a": [Sample(name="ä"), None, True]}) == (
            '{"a":[{"name":"\\u00e4","share":0.5,"size":3},null,true],"b":1}'
        )

    def test_equal_configs_equal_keys(self):
        assert key_of(Sample(size=3)) == key_of(Sample())
        assert key_of(Sample(share=1)) == key_of(Sample(share=1.0))
        assert key_of(Sample(size=4)) != key_of(Sample())
        assert len(key_of(Sample())) == 64

    def test_no_number_that_json_lacks(self):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical({"a": float("nan")})

    def test_what_has_no_canonical_form(self):
        for value in ({1, 2}, object(), b"x"):
            with pytest.raises(TypeError, match="has no canonical form"):
                canonical(value)

    def test_the_same_in_every_process(self):
        """Sets and dicts order their items by a hash that differs between processes; keys must not."""
        code = (
            "from badnets.core.config import canonical, key_of\n"
            "from badnets.attacks.badnets import BadNets\n"
            "from badnets.core import registry\n"
            "from badnets.plans.standard import standard\n"
            "attack = BadNets(mapping={3: 1, 1: 2, 2: 3}, trigger='patch:size=5,opacity=0.5')\n"
            "print(canonical(attack), key_of(attack), key_of(standard()), registry.names('claims'))\n"
        )
        told = set()
        for seed in ("0", "1", "12345"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60, check=True)
            told.add(done.stdout)
        assert len(told) == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "status"), [(BadnetsError, 4), (UsageError, 2), (RefusedError, 3), (StoreError, 5), (PartialError, 6)]
    )
    def test_exit_statuses(self, kind, status):
        error = kind("E-X", "it went wrong.", hint="Do this.")
        assert error.exit_status == status
        assert str(error) == "E-X it went wrong. Do this."
        assert str(kind("E-X", "it went wrong.")) == "E-X it went wrong."

    def test_they_cross_processes_whole(self):
        import copy

        error = copy.copy(UsageError("E-X", "m", hint="h"))
        assert (type(error), error.code, error.message, error.hint) == (UsageError, "E-X", "m", "h")
