"""`badnets scan` of a net: which architecture a file holds, the null population, p-values, exit statuses, the same answer twice."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tiny
import torch

from badnets import BadNets
from badnets.claims.undetectable import FIRST_CALIBRATION
from badnets.core import registry
from badnets.core.engine import Job, SerialEngine
from badnets.core.errors import RefusedError, UsageError
from badnets.core.store import Store
from badnets.core.suspect import Budget
from badnets.datasets.folder import Folder
from badnets.intake.formats import read_weights
from badnets.nets._weights import to_bytes
from badnets.plans import _null
from badnets.plans._jobs import Site
from badnets.plans._model_file import open_model
from badnets.plans._null import Kind, Null, null_population
from badnets.plans._plant import plant_seeds
from badnets.plans._recognise import recognise
from badnets.plans._scan import DETECTORS, NOT_ASKED, Heard, hear, judged, scan_model
from badnets.plans._stop import StopRequest
from badnets.train.recipe import Recipe

NET = {"kind": "fast_cnn", "width": 4, "hidden": 16}
CHEAP = ("channel_lipschitz", "mm_bd")


class Watch:
    def __init__(self):
        self.stop, self.jobs, self.done = StopRequest(), None, 0

    def started(self, nets, jobs):
        self.nets, self.jobs = nets, jobs

    def progress(self, done, jobs, seconds_left):
        self.done = done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of pictures, its data, and a planted pair as files."""
    folder = tiny.pictures(tmp_path_factory.mktemp("pictures"))
    data = Folder(size=8).load(folder)
    pair = plant_seeds(data, BadNets(rate=0.2), [0], net=NET, recipe=tiny.plan().recipe)
    files = tmp_path_factory.mktemp("models")
    (files / "victim.safetensors").write_bytes(to_bytes(pair.victims[0].network, {"badnets.planted": "true", "badnets.target": "[0]"}))
    (files / "bare.safetensors").write_bytes(to_bytes(pair.victims[0].network))
    torch.save(pair.victims[0].network.state_dict(), files / "victim.pt")
    torch.save({f"module.{k}": v for k, v in pair.victims[0].network.body.half().state_dict().items()}, files / "body.pt")
    return folder, data, files


def null(*, count=39, low=-1e9, high=-1e8, names=DETECTORS):
    """Clean nets whose scores lie far below those of any net, or far above."""
    draw = np.random.default_rng(0)
    nets = [{name: float(draw.uniform(low, high)) for name in names} for _ in range(count)]
    repeated = {name: [[nets[i][name]] * 2 for i in range(5)] for name in names}
    return Null(nets, repeated, dict.fromkeys(names, 0.1), "made up")


def known(path, data, net=None):
    """What a file is taken for, whether or not its net has learned anything."""
    return recognise(read_weights(path.read_bytes()), data, net)


class TestModelFile:
    def test_names_the_architecture_that_fits(self, world):
        _, data, files = world
        found = open_model(files / "bare.safetensors", data, NET)
        assert found.net == NET
        assert not found.network.training

    def test_tries_the_catalogue(self, world, tmp_path):
        data = world[1]
        net = registry.parse("nets", "paper_cnn").build(data.shape, data.num_classes, seed=0)
        (tmp_path / "n.safetensors").write_bytes(to_bytes(net))
        assert known(tmp_path / "n.safetensors", data).fields == {"kind": "paper_cnn"}
        with pytest.raises(RefusedError, match=r"E-PREPARATION n.safetensors: not analysable: accuracy"):
            open_model(tmp_path / "n.safetensors", data)

    def test_reads_the_widths_off_the_shapes(self, world):
        found = open_model(world[2] / "bare.safetensors", world[1])
        assert found.net == NET
        assert found.sandbox.startswith("own process")

    def test_what_shapes_do_not_show_is_said(self, world, tmp_path):
        data = world[1]
        net = registry.parse("nets", "fast_resnet:width=8").build(data.shape, data.num_classes, seed=0)
        torch.save(net.state_dict(), tmp_path / "n.pt")
        found = known(tmp_path / "n.pt", data)
        assert found.fields == {"kind": "fast_resnet", "width": 8}
        assert "taken by default, since shapes do not show them: head_scale=0.125" in found.notes
        assert known(tmp_path / "n.pt", data, found.fields | {"head_scale": 1.0}).fields["head_scale"] == 1.0

    def test_a_torch_file_is_the_same_net(self, world):
        _, data, files = world
        one, other = open_model(files / "bare.safetensors", data), open_model(files / "victim.pt", data)
        assert (one.format, other.format) == ("safetensors", "torch zip")
        x_NCHW = torch.from_numpy(data.test.x_NCHW[:8])
        assert torch.equal(one.network.predict_logits(x_NCHW), other.network.predict_logits(x_NCHW))

    def test_layers_alone_get_the_normalisation_that_fits(self, world):
        _, data, files = world
        found = open_model(files / "body.pt", data)
        assert any(note.startswith("prepared as ") and "clean images" in note for note in found.notes)
        assert found.accuracy.value > 0.8
        found = open_model(files / "body.pt", data, normalization=([0.25], [0.75]))
        assert found.network.mean.tolist() == [0.25]
        assert {"names taken as those of the layers alone", "prefix module. removed"} <= set(found.notes)

    def test_says_what_does_not_fit(self, world, tmp_path):
        honest = torch.load(world[2] / "victim.pt")
        first, last = list(honest)[2], list(honest)[-1]
        cases = [
            ({last: None}, f"E-WEIGHTS.*Nearest: fast_cnn: missing '{last}'"),
            ({"body.extra": torch.zeros(2)}, "E-WEIGHTS.*not of it 'body.extra'"),
            ({first: torch.zeros(4, 3, 5, 5)}, f"E-WEIGHTS.*of another shape '{first}'"),
            ({first: honest[first].long()}, f"E-WEIGHTS.*expected '{first}' as torch.float32, got int64"),
            ({"std": torch.zeros(1)}, "E-NORM.*not positive"),
            ({last: torch.full((3,), float("nan"))}, f"E-NAN n.pt: not analysable: 1 of {len(honest)} tensors.*'{last}'"),
        ]
        for change, said in cases:
            torch.save({name: value for name, value in {**honest, **change}.items() if value is not None}, tmp_path / "n.pt")
            with pytest.raises(RefusedError, match=said):
                open_model(tmp_path / "n.pt", world[1], {"kind": "fast_cnn"} if "E-WEIGHTS" in said else None)

    def test_refuses_what_is_for_other_images(self, world, tmp_path):
        net = registry.parse("nets", "paper_cnn").build((3, 32, 32), 10, seed=0)
        (tmp_path / "n.safetensors").write_bytes(to_bytes(net))
        with pytest.raises(
            RefusedError, match=r"E-WEIGHTS n.safetensors: .*no architecture of the catalogue for 1x8x8 images and 3 classes"
        ):
            open_model(tmp_path / "n.safetensors", world[1])

    def test_refuses_what_is_no_safetensors(self, world, tmp_path):
        (tmp_path / "x.safetensors").write_bytes(b"\x80\x04 not weights")
        with pytest.raises(RefusedError, match=r"E-PICKLE-RAW x.safetensors: it is a pickle"):
            open_model(tmp_path / "x.safetensors", world[1])

    def test_says_that_there_is_no_file(self, world, tmp_path):
        with pytest.raises(UsageError, match="E-FILE"):
            open_model(tmp_path / "absent.safetensors", world[1])

    def test_what_the_file_says_of_itself_changes_nothing(self, world):
        """Our own planted nets carry the secret in their metadata."""
        _, data, files = world
        judged = []
        for name in ("victim.safetensors", "bare.safetensors"):
            model = open_model(files / name, data, NET)
            model = type(model)(files / "same", "0" * 64, model.net, model.network)
            judged.append(scan_model(model, data, null()).verdict.model_dump())
        for verdict in judged:
            for line in verdict["lines"]:
                line["seconds"] = 0
        assert judged[0] == judged[1]


class TestVerdict:
    def test_is_a_rank_among_clean_nets(self, world):
        _, data, files = world
        model = open_model(files / "bare.safetensors", data, NET)
        high, low = scan_model(model, data, null()).verdict, scan_model(model, data, null(low=1e8, high=1e9)).verdict
        assert (high.flagged, high.p) == (True, 1 / 40)
        assert (low.flagged, low.p) == (False, 1.0)
        assert {line.p for line in high.lines} == {1 / 40}
        assert high.target in data.classes
        assert low.target is None

    def test_silence_about_the_suspect_alone_leaves_no_detector_out(self, world):
        """A file made to silence one detector changes nothing for it in other files, and the silence is shown."""
        model = open_model(world[2] / "bare.safetensors", world[1], NET)
        heard, clean = hear(model, world[1], DETECTORS), null()
        silent = Heard(heard.model, {**heard.said, DETECTORS[0]: heard.said[DETECTORS[0]].but(score=None, why_not="silenced")}, {})
        verdict = judged(silent, world[1], clean).verdict
        assert [(line.p, line.why_not) for line in verdict.lines if line.detector == DETECTORS[0]] == [(None, "silenced")]
        assert not any("left out" in note for note in verdict.notes)
        elsewhere = Null(clean.nets, clean.repeated, dict.fromkeys(DETECTORS[1:], 0.1), clean.setting)
        verdict = judged(silent, world[1], elsewhere).verdict
        assert DETECTORS[0] not in {line.detector for line in verdict.lines}
        assert f"{DETECTORS[0]} left out, since it says nothing of clean nets of such layers either: silenced" in verdict.notes

    def test_with_a_budget_it_stops_when_the_verdict_is_certain(self, world):
        model = open_model(world[2] / "bare.safetensors", world[1], NET)
        clean = null(names=(*CHEAP, "neural_cleanse"), low=-1e9, high=-1e8)
        whole, short = scan_model(model, world[1], clean), scan_model(model, world[1], clean, Budget(images=10**9))
        assert (whole.verdict.flagged, short.verdict.flagged) == (True, True)
        assert whole.verdict.p <= short.verdict.p <= 0.05
        last = short.verdict.lines[-1]
        assert (last.detector, last.p, last.images, last.why_not) == ("neural_cleanse", None, 0, NOT_ASKED)
        innocent = scan_model(model, world[1], null(low=1e8, high=1e9, names=CHEAP), Budget(images=10**9)).verdict
        assert (innocent.flagged, [line.why_not for line in innocent.lines]) == (False, ["", ""])

    def test_a_budget_is_of_all_detectors_together(self, world):
        model = open_model(world[2] / "bare.safetensors", world[1], NET)
        cost = hear(model, world[1], ("mm_bd",)).said["mm_bd"].images
        said = hear(model, world[1], ("mm_bd", "neural_cleanse", "channel_lipschitz"), Budget(images=cost)).said
        assert said["mm_bd"].score is not None
        assert {said[name].why_not for name in ("neural_cleanse", "channel_lipschitz")} == {f"the budget of {cost:,} images is spent."}
        assert sum(one.images for one in said.values()) == cost

    def test_too_few_clean_nets_say_nothing(self, world):
        model = open_model(world[2] / "bare.safetensors", world[1], NET)
        verdict = scan_model(model, world[1], null(count=10)).verdict
        assert verdict.flagged is None
        assert "10 clean nets cannot show anything" in verdict.why_not

    def test_says_the_same_twice(self, world):
        model = open_model(world[2] / "bare.safetensors", world[1], NET)
        first, second = (scan_model(model, world[1], null()) for _ in range(2))
        assert [(x.p, x.score, x.target, x.note) for x in first.verdict.lines] == [
            (x.p, x.score, x.target, x.note) for x in second.verdict.lines
        ]
        assert first.pictures.keys() == second.pictures.keys()
        assert all(np.array_equal(first.pictures[name], second.pictures[name]) for name in first.pictures)

    def test_false_alarms_are_of_nets_that_were_not_calibrated_on(self):
        """One wild net among forty: the folds without it flag it, and nobody else's verdict hears of it."""
        some = null(count=40, names=("mm_bd",))
        some.nets[7]["mm_bd"] = 1e12
        rate = some.false_alarms(alpha=0.05)
        flagged = [i for i in range(40) if _alone(some, i)]
        assert 7 in flagged
        assert rate.value == len(flagged) / 40
        assert rate.n == 40


def _alone(some, i):
    """Net i judged by the other four fifths, by hand."""
    others = [net["mm_bd"] for j, net in enumerate(some.nets) if j % 5 != i % 5]
    return (1 + sum(score >= some.nets[i]["mm_bd"] for score in others)) / (1 + len(others)) <= 0.05


LINEAR = {"kind": "layered", "layers": [{"op": "flatten"}, {"op": "linear", "name": "0", "out": 3}]}


class TestNullPopulation:
    def test_is_made_once(self, world, tmp_path, monkeypatch):
        folder, data, _ = world
        monkeypatch.setattr(_null, "NUM_NETS", {"quick": 3})
        monkeypatch.setattr(_null, "NUM_REPEATED", 2)
        site, kind = Site(Store(tmp_path), folder, SerialEngine(tiny.real)), Kind(Folder(size=8), data, NET)
        first, watch = Watch(), Watch()
        made = null_population(kind, CHEAP, "quick", site, first)
        again = null_population(kind, CHEAP, "quick", site, watch)
        assert first.done == first.jobs > 0
        assert (watch.nets, watch.jobs) == (3, 0)
        assert made.nets == again.nets
        assert len({net["mm_bd"] for net in made.nets}) == 3
        assert [len(scores) for scores in made.repeated["mm_bd"]] == [2, 2]

    def test_beside_a_strangers_net_each_has_a_recipe_of_its_own(self, world, tmp_path, monkeypatch):
        """And one that does not learn gives its place to another."""
        folder, data, _ = world
        monkeypatch.setattr(_null, "NUM_NETS", {"quick": 4})
        monkeypatch.setattr(_null, "NUM_REPEATED", 1)
        asked = []

        def recipe(seed, *_, **__):
            asked.append(seed - FIRST_CALIBRATION)
            rate = 1e-9 if seed == FIRST_CALIBRATION + 1 else 0.05 + (seed - FIRST_CALIBRATION) / 100
            return Recipe(epochs=20, batch_size=16, lr=rate)

        monkeypatch.setattr(_null, "drawn_recipe", recipe)
        site, kind = Site(Store(tmp_path), folder, SerialEngine(tiny.real)), Kind(Folder(size=8), data, LINEAR)
        made = null_population(kind, ("mm_bd",), "quick", site, Watch())
        assert asked == [0, 1, 2, 3, 0, 2, 3, 4]
        assert len({net["mm_bd"] for net in made.nets}) == 4
        assert (
            made.setting
            == "4 of this architecture trained by us: layered on folder, each by a recipe drawn for it: SGD or AdamW, 20 to 20 epochs"
        )
        watch = Watch()
        assert null_population(kind, ("mm_bd",), "quick", site, watch).nets == made.nets
        assert watch.jobs == 0

    def test_where_none_learns_that_is_said(self, world, tmp_path, monkeypatch):
        folder, data, _ = world
        monkeypatch.setattr(_null, "NUM_NETS", {"quick": 3})
        monkeypatch.setattr(_null, "NUM_REPEATED", 1)
        lazy = Recipe(epochs=0.1, batch_size=16, lr=1e-9)
        able = Recipe(epochs=20, batch_size=16, lr=0.05)
        monkeypatch.setattr(_null, "drawn_recipe", lambda seed, *_, **__: able if seed == FIRST_CALIBRATION else lazy)
        site, kind = Site(Store(tmp_path), folder, SerialEngine(tiny.real)), Kind(Folder(size=8), data, LINEAR)
        with pytest.raises(RefusedError, match=r"E-CLEAN-NETS not analysable: \d of 3 clean nets .* learned too little on folder"):
            null_population(kind, ("mm_bd",), "quick", site, Watch())

    def test_a_second_job_of_a_net_comes_after_all_first_ones(self):
        jobs = [[Job("a", "1"), Job("a", "2"), Job("a", "3")], [Job("b", "1"), Job("b", "2")], [], [Job("c", "1")]]
        found = [(job.key, job.payload) for job in _null._in_turn(jobs)]
        assert found == [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("b", "2"), ("a", "3")]

    def test_its_seeds_are_nobody_elses(self, world, tmp_path):
        """A net that `badnets plant` makes is not among those that it is judged by."""
        assert FIRST_CALIBRATION >= 10_000


@pytest.fixture
def command(world, monkeypatch, tmp_path):
    """`badnets scan` on the small world, with a made-up null population."""
    folder, _, files = world
    made = {"null": null()}
    monkeypatch.setattr(_null, "null_population", lambda *args: made["null"])
    tiny.scans_here(monkeypatch)

    def run(*arguments, name="victim.safetensors"):
        net = "fast_cnn:width=4,hidden=16"
        return tiny.cli("scan", files / name, "folder:size=8", "--data", folder, "--net", net, "--store", tmp_path / "store", *arguments)

    run.made = made
    return run


class TestCommand:
    def test_backdoored(self, command, tmp_path):
        done = command()
        assert done.status == 1
        assert "BACKDOORED" in done.out
        assert "p = 0.025 against 39 clean nets" in done.out
        assert list((tmp_path / "store" / "scans").rglob("neural_cleanse-trigger.png"))

    def test_a_torch_file(self, command):
        command.made["null"] = null(names=CHEAP)
        done = command("--json", "--require-sandbox", name="victim.pt")
        found = json.loads(done.out)
        assert (done.status, found["format"]) == (1, "torch zip")
        assert "Landlock" in found["sandbox"]

    def test_layers_alone(self, command):
        command.made["null"] = null(names=CHEAP)
        done = command("--normalize", "0.5/0.5", name="body.pt")
        assert done.status == 1
        assert "Read as torch zip, fast_cnn (width=4, hidden=16); sandbox: own process" in " ".join(done.out.split())
        for wrong in ("0.5", "0.5/x", "1/2/3", "0.1,0.2/0.5"):
            done = command("--normalize", wrong, name="body.pt")
            assert (done.status, done.err.count("\n")) == (2, 1)
            assert "E-NORM" in done.err

    def test_nothing_found(self, command):
        command.made["null"] = null(low=1e8, high=1e9)
        done = command()
        assert done.status == 0
        assert "NOTHING FOUND" in done.out
        assert "can miss a backdoor" in " ".join(done.out.split())

    def test_not_analysable_is_not_clean(self, command):
        command.made["null"] = null(count=5)
        done = command()
        assert done.status == 3
        assert "NOT ANALYSABLE" in done.out
        assert "does not mean clean" in " ".join(done.out.split())

    def test_json_is_one_document(self, command):
        done = command("--json")
        found = json.loads(done.out)
        assert done.status == 1
        assert found["flagged"] is True
        assert {line["detector"] for line in found["lines"]} == set(DETECTORS)

    def test_nothing_to_scan(self):
        done = tiny.cli("scan")
        assert done.status == 2
        assert "E-USAGE" in done.err
        assert done.err.count("\n") == 1

    @pytest.mark.parametrize("make", ["link", "pipe", "folder"])
    def test_no_regular_file(self, command, world, make, tmp_path):
        place = world[2] / f"{make}.safetensors"
        if not place.exists():
            {"link": lambda: place.symlink_to(world[2] / "bare.safetensors"), "pipe": lambda: os.mkfifo(place), "folder": place.mkdir}[
                make
            ]()
        done = command(name=place.name)
        assert done.status in (2, 3, 5)
        assert done.out == ""
        assert done.err.startswith("error E-")
