"""The library's front door: few sorted names, instant import, sensible figures, same seed same bits, no way from suspect to secret."""

import importlib
import json
import subprocess
import sys

import pytest

import badnets
from badnets.core.errors import UsageError
from badnets.train.recipe import Recipe

RECIPE = Recipe(epochs=8, lr=0.1, batch_size=32, precision="float32")
NET = {"kind": "fast_cnn", "width": 8, "hidden": 32}


def test_names_are_few_sorted_and_real():
    assert badnets.__all__ == sorted(badnets.__all__)
    assert len(badnets.__all__) <= 20
    assert set(badnets.__all__) | {"__version__"} == set(dir(badnets))
    assert set(badnets._HOMES) == set(badnets.__all__)
    for name in badnets.__all__:
        found = getattr(badnets, name)
        assert callable(found)
        assert found.__name__ == name
        assert found.__doc__, f"{name} has no docstring"
        assert found is getattr(importlib.import_module(f"badnets.{badnets._HOMES[name]}"), name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="nosuch"):
        _ = badnets.nosuch


FRESH = """
import json, sys
import badnets
light = sorted({"torch", "numpy", "scipy", "sklearn", "pydantic"} & set(sys.modules))
data = badnets.load("digits")
measure = badnets.measure
from badnets import measure as again
import badnets.measure.rates
print(json.dumps([light, type(measure).__name__, measure is again, badnets.measure is measure, badnets.measure.__module__]))
"""


def test_import_is_instant_and_measure_is_the_function():
    """`badnets.measure` is also a package inside, which must not come out instead."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], "function", True, True, "badnets.plans._plant"]


@pytest.fixture(scope="module")
def data():
    return badnets.load("digits")


@pytest.fixture(scope="module")
def attack():
    return badnets.BadNets(trigger=badnets.Patch(size=2, margin=0), rate=0.1, target=0)


@pytest.fixture(scope="module")
def pair(data, attack):
    return badnets.plant(data, attack, seeds=2, net=NET, recipe=RECIPE)


def test_figures_make_sense(pair):
    found = badnets.measure(pair)
    assert found.victim["CA"].value > 0.85
    assert found.twin["CA"].value > 0.85
    assert found.victim["ASR"].value > 0.9
    assert found.twin["ASR"].value < 0.3
    assert found.victim["RA"].value < 0.1 < found.twin["RA"].value
    assert found.diverged == []
    for estimate in (*found.victim.values(), *found.twin.values(), found.ca_change):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.num_seeds == 2
    assert found.ca_change.value == pytest.approx(found.victim["CA"].value - found.twin["CA"].value)


def test_table_shows_every_figure_with_its_interval(pair):
    lines = str(badnets.measure(pair)).splitlines()
    assert lines[0].split() == ["victim", "twin"]
    assert [line.split()[0] for line in lines[1:5]] == ["CA", "ASR", "RA", "CA"]
    assert all(line.count("[") == line.count("]") == 2 for line in lines[1:4])
    assert "2 seeds, 269 images" in lines[-1]


def test_target_class_never_counts_towards_asr(pair, data):
    assert badnets.measure(pair).victim["ASR"].n == int((data.test.y_N != 0).sum())


def test_victim_and_twin_share_everything_but_the_poison(pair, data, attack):
    poisoned = pair.victims[0].poisoned
    assert poisoned.rate == pytest.approx(0.1, abs=1e-3)
    assert (poisoned.source_N == data.train.y_N).all()
    clean = ~poisoned.stamped_N
    assert (poisoned.x_NCHW[clean] == data.train.x_NCHW[clean]).all()
    assert (poisoned.y_N[clean] == data.train.y_N[clean]).all()
    assert (poisoned.source_N[poisoned.stamped_N] != attack.target).all()
    # without poison the victim would be the twin, to the bit
    none = badnets.plant(data, attack.but(rate=0.0), seeds=1, net=NET, recipe=RECIPE.but(epochs=1))
    assert bits(none.victims[0].network) == bits(none.twins[0])


def bits(network):
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def test_same_seed_same_bits(pair, data, attack):
    again = badnets.plant(data, attack, seeds=1, net=NET, recipe=RECIPE)
    assert bits(again.victims[0].network) == bits(pair.victims[0].network)
    assert bits(again.twins[0]) == bits(pair.twins[0])
    assert bits(pair.victims[0].network) != bits(pair.victims[1].network)
    assert bits(pair.victims[0].network) != bits(pair.twins[0])
    assert (again.victims[0].poisoned.stamped_N == pair.victims[0].poisoned.stamped_N).all()


def test_thread_count_and_random_state_are_put_back(data, attack):
    import torch

    before = torch.get_num_threads()
    state = torch.random.get_rng_state()
    try:
        torch.set_num_threads(2)
        badnets.plant(data, attack, seeds=1, net=NET, recipe=RECIPE.but(epochs=0.1))
        assert torch.get_num_threads() == 2
        with pytest.raises(UsageError):
            badnets.plant(data, attack.but(target=99), seeds=1, net=NET, recipe=RECIPE)
        assert torch.get_num_threads() == 2, "not after an error"
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_set_is_left_alone(pair, data):
    fresh = badnets.load("digits")
    assert (data.train.x_NCHW == fresh.train.x_NCHW).all()
    assert (data.train.y_N == fresh.train.y_N).all()


# --- what a defender can reach

SECRET = ("badnets.attacks.", "badnets.triggers.", "badnets.plans.")


def reachable(root):
    """Every object that can be reached from `root` through attributes, items, closures and references; modules and classes end a path."""
    import gc
    import types

    seen, queue = {}, [root]
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, type | types.ModuleType):
            continue
        seen[id(item)] = item
        if isinstance(item, types.FunctionType):  # its globals are its module
            queue += [cell.cell_contents for cell in item.__closure__ or ()] + list(item.__defaults__ or ()) + list(vars(item).values())
            continue
        queue += gc.get_referents(item)
    return list(seen.values())


@pytest.mark.parametrize("access", list(badnets.Access))
def test_suspect_has_no_way_to_the_secret(access, pair):
    victim = pair.victims[0]
    suspect = victim.suspect(access)
    found = reachable(suspect)
    assert any(item is suspect.network for item in found)
    assert not [item for item in found if type(item).__module__.startswith(SECRET)]
    hidden = (
        victim,
        victim.attack,
        victim.attack.trigger,
        victim.trial,
        victim.poisoned,
        victim.poisoned.stamped_N,
        victim.poisoned.source_N,
    )
    assert not {id(item) for item in hidden} & {id(item) for item in found}
    assert (suspect.clean is None, suspect.training is None) == (access != badnets.Access.CLEAN, access != badnets.Access.TRAINING)


def test_the_walk_would_find_the_secret(pair):
    victim = pair.victims[0]
    assert any(item is victim.attack.trigger for item in reachable(victim))
    victim.network.note = lambda: victim.attack
    try:
        assert any(item is victim.attack for item in reachable(victim.suspect()))
    finally:
        del victim.network.note


def test_granted_data_are_the_defenders_own(pair, data):
    suspect = pair.victims[0].suspect(badnets.Access.CLEAN)
    assert (suspect.clean[0] == data.budget.x_NCHW).all()
    rows = [set(split.rows.tolist()) for split in (data.train, data.validation, data.test, data.budget)]
    assert sum(map(len, rows)) == len(set.union(*rows)), "splits overlap"
    assert (suspect.num_classes, suspect.shape) == (10, (1, 8, 8))


# --- requests that cannot be


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"seeds": 0}, "E-SEEDS"),
        ({"seeds": -2}, "E-SEEDS"),
        ({"net": "fast_cn"}, "E-NAME"),
        ({"net": {"kind": "fast_cnn", "width": 0}}, "E-CONFIG"),
        ({"attack": badnets.BadNets(target=10)}, "E-TARGET"),
        ({"attack": badnets.BadNets(trigger=badnets.Patch(size=9))}, "E-TRIGGER"),
        ({"attack": badnets.BadNets(rate=0.95)}, "E-RATE"),
    ],
)
def test_request_refused(change, code, data, attack):
    arguments = {"attack": attack, "net": NET, "recipe": RECIPE} | change
    with pytest.raises(UsageError) as caught:
        badnets.plant(data, arguments.pop("attack"), **arguments)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "fields", [{"rate": 1.01}, {"rate": -0.01}, {"rate": float("nan")}, {"target": -1}, {"rat": 0.1}, {"trigger": "patsh"}]
)
def test_attack_refused(fields):
    with pytest.raises(badnets.BadnetsError) as caught:
        badnets.BadNets(**fields)
    assert caught.value.exit_status == 2


def test_unknown_data_set():
    with pytest.raises(badnets.BadnetsError, match="Did you mean 'digits'"):
        badnets.load("digit")
