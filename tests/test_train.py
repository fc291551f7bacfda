"""The training loop: equal to a plain loop, repeatable to the bit, resumable at every step, honest about divergence."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

from badnets.core import device as devices
from badnets.core.errors import RefusedError, UsageError
from badnets.core.rng import generator
from badnets.nets._taps import Units
from badnets.nets.fast_cnn import FastCnn
from badnets.nets.fast_resnet import FastResnet
from badnets.nets.small_vit import SmallVit
from badnets.train import recipe as recipes
from badnets.train._state import Progress, pack
from badnets.train.augment import augment
from badnets.train.fit import Interrupted, Watch, fit
from badnets.train.optim import Muon, lr_factor, make_optimizer, orthogonalized
from badnets.train.recipe import Recipe, default_recipe

torch.set_num_threads(1)

SHAPE, CLASSES = (1, 8, 8), 4
NET = FastCnn(width=4, hidden=16)
PLAIN = Recipe(epochs=3, batch_size=16, lr=0.05, precision="float32")
RECIPES = {
    "sgd": PLAIN.but(epochs=2.5),
    "adamw": PLAIN.but(optimizer="adamw", lr=0.003, schedule="cosine", label_smoothing=0.1),
    "muon": PLAIN.but(optimizer="muon", flip=True, shift=1, cutout=2),
}


def toy(num: int = 70, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Class k lights quadrant k, under noise."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (num,), generator=draw)
    x = torch.randint(0, 120, (num, *SHAPE), dtype=torch.uint8, generator=draw)
    for i, k in enumerate(y.tolist()):
        x[i, :, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] += 100
    return x, y


def bits(network: torch.nn.Module) -> list[torch.Tensor]:
    return [v.clone() for v in network.state_dict().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Memory:
    """A checkpoint in memory that keeps every state it was given."""

    def __init__(self, data: bytes | None = None) -> None:
        self.saved: list[bytes] = [] if data is None else [data]

    def save(self, data: bytes) -> None:
        self.saved.append(data)

    def load(self) -> bytes | None:
        return self.saved[-1] if self.saved else None


# ---- equal to a slow reference ---------------------------------------------------------------------------------------


def plain_loop(network, x, y, recipe, seed):
    """What fit does for SGD, as one would write it on a slide."""
    decay = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)
    per_epoch = len(x) // recipe.batch_size
    total = round(recipe.epochs * per_epoch)
    network.train()
    step = 0
    for epoch in range(math.ceil(recipe.epochs)):
        order = torch.randperm(len(x), generator=generator(seed, "order", epoch))
        for rows in torch.tensor_split(order, [i * len(x) // per_epoch for i in range(1, per_epoch)]):
            if step == total:
                break
            place = (step + 0.5) / total
            share = place / recipe.warmup if place < recipe.warmup else (1 - place) / (1 - recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * share
            loss = cross_entropy(network(x[rows].float() / 255), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    network.eval()


@pytest.mark.parametrize("epochs", [0.5, 1, 2.25])
def test_fit_gives_the_numbers_of_a_plain_loop(epochs):
    x, y = toy()
    recipe = PLAIN.but(epochs=epochs)
    ours, plain = NET.build(SHAPE, CLASSES, seed=1), NET.build(SHAPE, CLASSES, seed=1)
    fit(ours, x, y, recipe, seed=5)
    plain_loop(plain, x, y, recipe, seed=5)
    for one, two in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert not equal(bits(ours), bits(NET.build(SHAPE, CLASSES, seed=1)))


def test_muon_makes_orthogonal_updates_of_hidden_weights_only():
    weight = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    ours = orthogonalized(weight)
    values = torch.linalg.svdvals(ours)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert torch.nn.functional.cosine_similarity(ours.flatten(), (u @ vh).flatten(), dim=0) > 0.95
    assert torch.linalg.svdvals(orthogonalized(weight.T)).mean() == pytest.approx(float(values.mean()) * (30 / 12) ** 0.5, rel=1e-4)
    optimizer = make_optimizer(NET.build(SHAPE, CLASSES, seed=0), RECIPES["muon"])
    assert isinstance(optimizer, Muon)
    network = NET.build(SHAPE, CLASSES, seed=0)
    hidden = make_optimizer(network, RECIPES["muon"]).hidden
    names = {name for name, p in network.named_parameters() if id(p) in hidden}
    assert len(names) == 2
    assert all(p.ndim >= 2 for name, p in network.named_parameters() if name in names)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_our_optimisers_give_the_numbers_of_torchs(name):
    recipe = RECIPES[name].but(weight_decay=0.1)
    ours, theirs = NET.build(SHAPE, CLASSES, seed=1), NET.build(SHAPE, CLASSES, seed=1)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        reference = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True)
    else:
        reference = torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.99))
    optimizer, (x, y) = make_optimizer(ours, recipe), toy()
    for _ in range(6):
        for network, step in ((ours, lambda: optimizer.step(1.0)), (theirs, reference.step)):
            network.zero_grad()
            cross_entropy(network(x), y).backward()
            step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_as_they_are():
    network = NET.build(SHAPE, CLASSES, seed=1)
    first = next(network.parameters()).requires_grad_(False)
    before, (x, y) = first.clone(), toy()
    fit(network, x, y, PLAIN, seed=5)
    assert torch.equal(first, before)
    assert len(make_optimizer(network, PLAIN).parameters) == len(list(network.parameters())) - 1


def test_training_does_not_import_the_compiler():
    code = (
        "import sys, torch; from badnets.nets.fast_cnn import FastCnn; from badnets.train.fit import fit; "
        "from badnets.train.recipe import Recipe; n = FastCnn(width=1).build((1, 8, 8), 2, seed=0); "
        "fit(n, torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, Recipe(epochs=1, lr=0.1), seed=0); "
        "n.predict_logits(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("total", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_schedule_rises_once_and_ends_where_training_ends(total, schedule):
    recipe = PLAIN.but(schedule=schedule)
    factors = [lr_factor(step, total, recipe) for step in range(total)]
    assert all(0 < f <= 1 for f in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert lr_factor(total, total, recipe.but(final_lr=0.0)) <= 0.0 or schedule == "cosine"
    if total == 100:
        assert factors[-1] < 0.01
        assert 15 <= peak <= 25
        assert lr_factor(99, 100, recipe.but(final_lr=0.3)) == pytest.approx(0.3, abs=0.01)
    assert lr_factor(total - 1, total, recipe.but(schedule="constant", warmup=0.0)) == 1.0


# ---- repeatable, and the same for victim and twin --------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_call_gives_the_same_bits_whatever_the_global_state(name):
    x, y = toy()
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        network = NET.build(SHAPE, CLASSES, seed=1)
        report = fit(network, x, y, RECIPES[name], seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((bits(network), report.losses))
    assert equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    other = NET.build(SHAPE, CLASSES, seed=1)
    fit(other, x, y, RECIPES[name], seed=6)
    assert not equal(results[0][0], bits(other))


def test_victim_and_twin_see_the_same_batches_whatever_their_labels():
    x, y = toy()
    orders = []
    for labels in (y, (y + 1) % CLASSES):
        network, seen = NET.build(SHAPE, CLASSES, seed=1), []
        network.register_forward_hook(lambda m, i, o, seen=seen: seen.append(i[0].clone()))
        fit(network, x, labels, PLAIN, seed=5)
        orders.append(seen)
    assert equal(*orders)
    assert len(orders[0]) == 12


def test_every_epoch_shows_every_image_once_in_a_new_order_and_no_batch_is_small():
    x, y = toy()
    network, seen = NET.build(SHAPE, CLASSES, seed=1), []
    network.register_forward_hook(lambda m, i, o: seen.append(i[0].clone()))
    fit(network, x, y, PLAIN, seed=5)
    sizes = [len(batch) for batch in seen]
    assert sum(sizes) == 3 * len(x)
    assert set(sizes) == {17, 18}
    epochs = [torch.cat(seen[4 * e : 4 * e + 4]) for e in range(3)]
    assert not torch.equal(epochs[0], epochs[1])
    for epoch in epochs:
        assert sorted(epoch.flatten(1).tolist()) == sorted(x.flatten(1).tolist())


def test_the_callers_images_are_left_as_they_are():
    x, y = toy()
    before = x.clone()
    fit(NET.build(SHAPE, CLASSES, seed=1), x, y, RECIPES["muon"], seed=5)
    assert torch.equal(x, before)


# ---- converges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_tiny_problem_is_learned(name):
    x, y = toy(256)
    network = NET.build(SHAPE, CLASSES, seed=1)
    recipe = RECIPES[name].but(epochs=12, flip=False, shift=0, cutout=0)
    report = fit(network, x, y, recipe, seed=5)
    x_new, y_new = toy(200, seed=9)
    assert (network.predict_logits(x_new).argmax(1) == y_new).float().mean() > 0.97
    assert not network.training
    assert not report.diverged
    assert not report.constant
    assert report.steps == report.total_steps == 12 * 16
    assert len(report.losses) == 12
    assert report.losses[-1] < report.losses[0]
    assert report.images == 12 * 256
    assert report.seconds > 0
    assert any("precision float32" in choice for choice in report.choices)


@pytest.mark.parametrize("net", [FastResnet(width=4), SmallVit(width=16, depth=1, heads=2)])
def test_nets_with_norms_learn_too(net):
    x, y = toy(256)
    network = net.build(SHAPE, CLASSES, seed=1)
    recipe = PLAIN.but(epochs=10) if isinstance(net, FastResnet) else PLAIN.but(epochs=15, optimizer="adamw", lr=0.005)
    fit(network, x, y, recipe, seed=5)
    assert (network.predict_logits(x).argmax(1) == y).float().mean() > 0.9


def test_soft_labels_equal_to_hard_ones_give_the_same_net():
    x, y = toy()
    hard, soft = NET.build(SHAPE, CLASSES, seed=1), NET.build(SHAPE, CLASSES, seed=1)
    fit(hard, x, y, PLAIN, seed=5)
    fit(soft, x, torch.nn.functional.one_hot(y, CLASSES).float(), PLAIN, seed=5)
    for one, two in zip(hard.state_dict().values(), soft.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


# ---- divergence ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_raises_nothing():
    x, y = toy()
    report = fit(NET.build(SHAPE, CLASSES, seed=1), x, y, PLAIN.but(lr=1e30, warmup=0.0), seed=5)
    assert report.diverged
    assert report.diverged_step is not None
    assert 0 < report.diverged_step < report.steps == 4 < report.total_steps
    assert report.constant


def test_a_net_that_learned_nothing_is_called_constant():
    x, y = toy()
    noise = torch.randint(0, 256, x.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    report = fit(NET.build(SHAPE, CLASSES, seed=1), noise, y, PLAIN.but(lr=1e-9), seed=5)
    assert report.constant
    assert not report.diverged


# ---- progress, stop, resume ------------------------------------------------------------------------------------------


def test_progress_is_told_after_every_epoch():
    x, y = toy()
    news = []
    report = fit(NET.build(SHAPE, CLASSES, seed=1), x, y, PLAIN.but(epochs=2.5), seed=5, watch=Watch(progress=news.append))
    assert [(n.epoch, n.step, n.total_steps) for n in news] == [(1, 4, 10), (2, 8, 10), (3, 10, 10)]
    assert tuple(n.loss for n in news) == report.losses


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_at_any_step_and_resumed_the_bits_are_those_of_an_undisturbed_run(name):
    x, y = toy()
    calm = NET.build(SHAPE, CLASSES, seed=1)
    whole = fit(calm, x, y, RECIPES[name], seed=5)
    for stop in range(whole.total_steps):
        memory, calls = Memory(), iter(range(whole.total_steps))
        watch = Watch(should_stop=lambda calls=calls, stop=stop: next(calls) == stop, checkpoint=memory)
        with pytest.raises(Interrupted):
            fit(NET.build(SHAPE, CLASSES, seed=1), x, y, RECIPES[name], seed=5, watch=watch)
        resumed = NET.build(SHAPE, CLASSES, seed=2)
        report = fit(resumed, x, y, RECIPES[name], seed=5, watch=Watch(checkpoint=memory))
        assert equal(bits(resumed), bits(calm)), f"differs after a stop before step {stop}"
        assert report.losses == whole.losses
        assert report.steps == whole.steps


def test_killed_after_any_epoch_and_resumed_the_bits_agree_with_batch_norm_too():
    x, y = toy()
    net, recipe = FastResnet(width=4), PLAIN.but(epochs=4)
    calm, memory = net.build(SHAPE, CLASSES, seed=1), Memory()
    fit(calm, x, y, recipe, seed=5, watch=Watch(checkpoint=memory))
    assert len(memory.saved) == 4
    for data in memory.saved:
        resumed = net.build(SHAPE, CLASSES, seed=2)
        report = fit(resumed, x, y, recipe, seed=5, watch=Watch(checkpoint=Memory(data)))
        assert equal(bits(resumed), bits(calm))
        assert report.steps == 16


def test_stopping_without_a_checkpoint_raises_too_and_leaves_the_net_in_evaluation_mode():
    x, y = toy()
    network = NET.build(SHAPE, CLASSES, seed=1)
    with pytest.raises(Interrupted, match="step 0 of 12"):
        fit(network, x, y, PLAIN, seed=5, watch=Watch(should_stop=lambda: True))
    assert not network.training


def test_a_checkpoint_of_something_else_is_refused():
    x, y = toy()
    memory = Memory()
    fit(NET.build(SHAPE, CLASSES, seed=1), x, y, PLAIN, seed=5, watch=Watch(checkpoint=memory))
    good = memory.saved[0]
    network = NET.build(SHAPE, CLASSES, seed=1)
    other_net = FastCnn(width=5).build(SHAPE, CLASSES, seed=1)
    state = Progress(0, torch.zeros(0), (PLAIN.model_dump_json(), 5, len(x)))
    wrong_net = pack(other_net, make_optimizer(other_net, PLAIN), state)
    cases = [(good, PLAIN, 6), (good, PLAIN.but(lr=0.06), 5), (good[:-3], PLAIN, 5), (b"rubbish", PLAIN, 5), (wrong_net, PLAIN, 5)]
    for data, recipe, seed in cases:
        with pytest.raises(RefusedError, match="E-CHECKPOINT"):
            fit(network, x, y, recipe, seed=seed, watch=Watch(checkpoint=Memory(data)))


# ---- augmentation ----------------------------------------------------------------------------------------------------


def test_augmentation_moves_images_as_it_says():
    x = torch.randint(0, 256, (300, 2, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = augment(x, PLAIN.but(flip=True), seed=0, epoch=0)
    mirrored = [torch.equal(f, o.flip(2)) for f, o in zip(flipped, x, strict=True)]
    assert all(m or torch.equal(f, o) for m, f, o in zip(mirrored, flipped, x, strict=True))
    assert 110 < sum(mirrored) < 190
    shifted = augment(x, PLAIN.but(shift=2), seed=0, epoch=0)
    padded = torch.nn.functional.pad(x.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    found = {
        (i, j)
        for new, old in zip(shifted, padded, strict=True)
        for i in range(5)
        for j in range(5)
        if torch.equal(new, old[:, i : i + 6, j : j + 7])
    }
    assert len(found) == 25
    cut = augment(x.clamp(min=1), PLAIN.but(cutout=3), seed=0, epoch=0)
    holes = (cut == 0).sum((1, 2, 3))
    assert holes.max() == 2 * 9
    assert holes.min() >= 2
    assert torch.equal(cut[cut > 0], x.clamp(min=1)[cut > 0])


def test_augmentation_depends_on_seed_and_epoch_only_and_is_off_by_default():
    x = toy()[0]
    recipe = PLAIN.but(flip=True, shift=1, cutout=2)
    first = augment(x, recipe, seed=3, epoch=1)
    assert torch.equal(first, augment(x, recipe, seed=3, epoch=1))
    assert not torch.equal(first, augment(x, recipe, seed=3, epoch=2))
    assert not torch.equal(first, augment(x, recipe, seed=4, epoch=1))
    assert torch.equal(augment(x, PLAIN, seed=3, epoch=1), x)


# ---- requests that cannot be met -------------------------------------------------------------------------------------


def test_data_that_do_not_fit_are_refused():
    x, y = toy()
    cases = [
        (x.float(), y, "E-IMAGES"),
        (x[:, :, :7], y, "E-IMAGES"),
        (x, y[:-1], "E-IMAGES"),
        (x[:1], y[:1], "E-IMAGES"),
        (x, y + 1, "E-LABELS"),
        (x, y - 1, "E-LABELS"),
        (x, y.int(), "E-LABELS"),
        (x, torch.rand(len(x), CLASSES + 1), "E-LABELS"),
    ]
    for images, labels, code in cases:
        with pytest.raises(UsageError) as caught:
            fit(NET.build(SHAPE, CLASSES, seed=1), images, labels, PLAIN, seed=5)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"epochs": float("inf")}, {"lr": -1}, {"batch_size": 1}, {"optimizer": "adam"}, {"wamrup": 0.1}]
)
def test_impossible_recipes_are_refused_with_the_offending_value(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        PLAIN.but(**bad)


@pytest.mark.parametrize("num", [2, 3, 15, 17, 31])
def test_few_images_train_too(num):
    x, y = toy(num)
    report = fit(FastResnet(width=2).build(SHAPE, CLASSES, seed=1), x, y, PLAIN.but(epochs=0.01), seed=5)
    assert report.steps == 1


def test_every_named_recipe_is_complete_and_the_default_says_why():
    for name in ("mnist_fast", "fashion_fast", "cifar_airbench", "small_vit"):
        assert getattr(recipes, name)().epochs > 0
    for net in ("fast_cnn", "paper_cnn", "fast_resnet", "preact_resnet18", "small_vit", "wired"):
        for shape, num in (((1, 28, 28), 54_000), ((1, 28, 28), 9_000), ((3, 32, 32), 45_000), ((1, 8, 8), 1_000)):
            choice = default_recipe(net, shape, num)
            assert isinstance(choice.value, Recipe)
            assert len(choice.reason) > 10


# ---- device choices --------------------------------------------------------------------------------------------------


def test_every_choice_has_its_reason():
    device = devices.choose_device("auto")
    assert device.value.type in ("cpu", "cuda")
    for choice in (device, devices.choose_precision(torch.device("cpu")), devices.choose_layout(torch.device("cpu"))):
        assert len(choice.reason) > 10
        assert str(choice.value) in str(choice)
        assert choice.reason in str(choice)


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_bfloat16_is_chosen_only_where_a_gpu_multiplies_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert devices.choose_precision(torch.device("cuda:0")).value == expected
    assert devices.choose_precision(torch.device("cuda:0"), "float32").value == "float32"


def test_every_cpu_trains_in_float32_unless_asked():
    cpu = torch.device("cpu")
    assert devices.choose_precision(cpu).value == "float32"
    assert devices.choose_precision(cpu, "bfloat16").value == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_net_is_measured_in_float32_whatever_it_was_trained_in(precision):
    x, y = toy(64)
    network = NET.build(SHAPE, CLASSES, seed=1)
    fit(network, x, y, PLAIN.but(precision=precision), seed=5)
    with torch.no_grad():
        by_hand_NK = network.eval()(x)
    assert by_hand_NK.dtype == torch.float32
    assert torch.equal(network.predict_logits(x), by_hand_NK)


def test_bfloat16_trains_and_keeps_float32_weights():
    x, y = toy(128)
    network = NET.build(SHAPE, CLASSES, seed=1)
    report = fit(network, x, y, PLAIN.but(epochs=10, precision="bfloat16"), seed=5)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert report.losses[-1] < 0.5
    assert "precision bfloat16: asked for" in report.choices


@pytest.mark.parametrize("wanted", ["tpu", "cuda:99", "meta", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(wanted):
    with pytest.raises(UsageError, match="E-DEVICE"):
        devices.choose_device(wanted)
    assert devices.choose_device("cpu").value == torch.device("cpu")


def test_units_is_the_identity():
    x = torch.rand(2, 3)
    assert Units(3)(x) is x
