"""`badnets scan --images`: what a folder of images without labels must be, who is shown it, what is remembered, what is said of it."""

from __future__ import annotations

import json
import re
import shutil

import jsonschema
import numpy as np
import pytest
import scan_samples as samples
import tiny
from PIL import Image
from sarif_schema import SCHEMA
from test_scan_page import text_of

from badnets.claims._scanned import Scanned
from badnets.claims._unlabelled import ScannedUnlabelled
from badnets.core import registry
from badnets.core.config import canonical
from badnets.core.engine import Engine, SerialEngine
from badnets.core.errors import RefusedError, UsageError
from badnets.core.scanned import UnlabelledImages
from badnets.core.store import Store
from badnets.core.suspect import Access
from badnets.datasets.folder import Folder
from badnets.intake import unlabelled
from badnets.intake.unlabelled import FEWEST, looks_flat, read_unlabelled
from badnets.nets._weights import to_bytes
from badnets.plans import _null, _scan, _scan_many, _scan_work
from badnets.plans._jobs import Site
from badnets.plans._null import DATA_FREE, Kind, Null, null_population
from badnets.plans._questions import parse
from badnets.plans._stop import StopRequest
from badnets.plans._trial import Trial
from badnets.report.sarif import render_sarif
from badnets.report.scan_page import render_scan

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
NET = {"kind": "fast_cnn", "width": 4, "hidden": 16}
PAIR = ("channel_lipschitz", "universal_inversion")
"""One detector that looks at no image, and one that does."""


def flat(root, *, seed=5, count=10, size=8):
    """A folder of pictures without labels, three times `count` of them."""
    root.mkdir()
    for k, i, pixels in tiny.drawn(count=count, size=size, seed=seed):
        Image.fromarray(pixels).save(root / f"{i:03}-{k}.png")
    return root


@pytest.fixture
def images(tmp_path):
    return flat(tmp_path / "images")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def data(labelled):
    return Folder(size=8).load(labelled)


@pytest.fixture(scope="module")
def network():
    return tiny.taught(registry.parse("nets", NET).build(GREY, 3, seed=0))


class TestFolder:
    def test_names_and_copies_do_not_matter(self, images, tmp_path):
        first = read_unlabelled(images, GREY)
        assert (first.x_NCHW.shape, first.num_files, first.num_read) == ((30, *GREY), 30, 30)
        for number, path in enumerate(sorted(images.iterdir(), reverse=True)):
            path.rename(images / f"x{number:02}.png")
        shutil.copy(images / "x00.png", images / "copy.png")
        (images / ".hidden").write_text("passed over")
        again = read_unlabelled(images, GREY)
        assert (again.sha256, len(again.x_NCHW), again.num_read) == (first.sha256, 30, 31)
        (images / "x00.png").unlink()
        (images / "copy.png").unlink()
        assert read_unlabelled(images, GREY).sha256 != first.sha256
        assert read_unlabelled(flat(tmp_path / "others", seed=6), GREY).sha256 != first.sha256

    def test_are_made_as_large_as_the_net_reads_them(self, tmp_path):
        found = read_unlabelled(flat(tmp_path / "large", size=40), GREY)
        assert found.x_NCHW.shape == (30, *GREY)
        assert found.x_NCHW.dtype == np.uint8

    def test_grey_ones_are_colours_for_a_net_that_reads_colours(self, images):
        x_NCHW = read_unlabelled(images, COLOUR).x_NCHW
        assert x_NCHW.shape == (30, *COLOUR)
        assert (x_NCHW == x_NCHW[:, :1]).all()
        assert read_unlabelled(images, COLOUR).sha256 != read_unlabelled(images, GREY).sha256

    def test_colour_is_not_guessed_away_for_a_net_that_reads_grey(self, images):
        Image.new("RGB", (8, 8), (9, 90, 200)).save(images / "photo.jpg")
        with pytest.raises(
            RefusedError, match=r"E-SHAPE .*expected grey images, as the net reads them; 1 of 31 have colour, the first photo"
        ):
            read_unlabelled(images, GREY)
        assert read_unlabelled(images, COLOUR).x_NCHW.shape == (31, *COLOUR)

    def test_of_very_many_some_are_read_evenly(self, images, monkeypatch):
        monkeypatch.setattr(unlabelled, "MOST", 21)
        found = read_unlabelled(images, GREY)
        assert (len(found.x_NCHW), found.num_read, found.num_files) == (21, 21, 30)

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (
                lambda root: [path.unlink() for path in root.iterdir()],
                r"E-FEW .*expected at least 20 different images, got none \(it is empty\)",
            ),
            (lambda root: [path.unlink() for path in sorted(root.iterdir())[: 31 - FEWEST]], r"E-FEW .*got 19 \(in 19 files\)"),
            (lambda root: (root / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"E-IMAGE .*bad\.png: .*Bad files: 1 of 31 in "),
            (lambda root: (root / "README.md").write_text("not an image"), r"E-IMAGE .*README\.md: "),
            (lambda root: (root / "cat").mkdir(), r"E-FOLDER .*cat: .*got 1 of those beside 30 files\. Put the images into one folder"),
            (lambda root: (root / "gone.png").symlink_to("nowhere.png"), r"E-FILE .*gone\.png"),
        ],
    )
    def test_what_is_refused(self, images, spoil, said):
        spoil(images)
        with pytest.raises(RefusedError, match=said):
            read_unlabelled(images, GREY)

    def test_twenty_copies_of_one_image_are_one(self, images):
        first, *others = sorted(images.iterdir())
        for path in others:
            shutil.copy(first, path)
        with pytest.raises(RefusedError, match=r"E-FEW .*got 1 \(in 30 files\)"):
            read_unlabelled(images, GREY)

    def test_class_folders_have_labels(self, labelled):
        with pytest.raises(RefusedError, match=r"E-FOLDER .*got 3 of those\. Images in class folders have labels: .*--data"):
            read_unlabelled(labelled, GREY)

    def test_what_is_no_folder(self, images):
        for place in (images / "000-0.png", images / "absent"):
            with pytest.raises(UsageError, match=r"E-DATA --images"):
                read_unlabelled(place, GREY)

    def test_looks_flat(self, images, labelled, tmp_path):
        assert looks_flat(images)
        (tmp_path / "none").mkdir()
        assert not any(looks_flat(place) for place in (labelled, tmp_path / "none", tmp_path / "absent", images / "000-0.png"))
        (images / "train-images-idx3-ubyte").write_bytes(b"")
        assert not looks_flat(images)

    def test_a_worker_notices_that_they_are_others_by_now(self, images):
        handed = read_unlabelled(images, GREY).handed
        assert len(handed.open(GREY).x_NCHW) == 30
        unlabelled._again.cache_clear()
        (images / "000-0.png").unlink()
        with pytest.raises(RefusedError, match=r"E-CHANGED .*its images are not those any more"):
            handed.open(GREY)

    def test_labels_are_the_answers_of_the_net(self, images, data, network):
        shown = read_unlabelled(images, GREY).in_place_of_budget(data, network)
        assert len(shown.budget) == 30
        assert set(shown.budget.y_N.tolist()) == {0, 1, 2}
        assert (shown.train, shown.validation, shown.sha256) == (data.train, data.validation, data.sha256)


class TestQuestion:
    @pytest.fixture
    def question(self, images):
        return ScannedUnlabelled(asked=Scanned(detector={"kind": PAIR[1]}), images=read_unlabelled(images, GREY).handed)

    def test_travels(self, question):
        again = parse(json.loads(canonical(question)))
        assert again == question
        assert canonical(again) == canonical(question)

    def test_its_key_is_of_the_images_and_not_of_their_place(self, question):
        trial = Trial(dataset="folder", data_sha256="0", net=NET, recipe=tiny.plan().recipe, attack=None, seed=0)
        moved, other = question.images.but(folder="/elsewhere"), question.images.but(sha256="0" * 64)
        key = trial.question_key(question, None)
        assert trial.question_key(question.but(images=moved), None) == key
        assert trial.question_key(question.but(images=other), None) != key
        assert trial.question_key(question.asked, None) != key

    def test_its_key_changes_with_detectors_and_with_its_own_source(self, question, monkeypatch):
        trial = Trial(dataset="folder", data_sha256="0", net=NET, recipe=tiny.plan().recipe, attack=None, seed=0)
        keys = {trial.question_key(question, None)}
        monkeypatch.setattr("badnets.plans._trial.defence_digest", lambda entries: "another")
        keys.add(trial.question_key(question, None))
        monkeypatch.setattr("badnets.plans._trial.unlabelled_digest", lambda: "another")
        assert len(keys | {trial.question_key(question, None)}) == 3

    def test_only_detectors_of_nets(self, question, network, data):
        wrong = question.but(asked=Scanned(detector={"kind": "strip"}))
        with pytest.raises(AssertionError, match="strip judges"):
            wrong.arrays(network, None)

    def test_which_detectors_look_at_images(self):
        looking = {name for name in _scan.DETECTORS if registry.entry("detectors", name).access is not Access.MODEL}
        assert looking == set(_scan.DETECTORS) - set(DATA_FREE)


class Watch:
    def __init__(self):
        self.stop, self.jobs = StopRequest(), None

    def started(self, nets, jobs):
        self.jobs = jobs

    def progress(self, done, jobs, seconds_left):
        pass


class TestCleanNets:
    def test_are_shown_the_same_images(self, labelled, data, images, tmp_path, monkeypatch):
        monkeypatch.setattr(_null, "NUM_NETS", {"quick": 1})
        monkeypatch.setattr(_null, "NUM_REPEATED", 1)
        learned, bench_of = tiny.plan().recipe, _null.bench_of
        monkeypatch.setattr(_null, "bench_of", lambda plan, *rest: bench_of(plan.but(recipe=learned), *rest))
        site = Site(Store(tmp_path / "store"), labelled, SerialEngine(tiny.real))

        def made(shown):
            watch = Watch()
            null = null_population(Kind(Folder(size=8), data, NET, shown), PAIR, "quick", site, watch)
            return null, watch.jobs

        (plain, first), (same, none) = made(None), made(None)
        assert first > none == 0
        shown, jobs = made(read_unlabelled(images, GREY))
        assert jobs == 2, "of the detector that looks at images: one net, and its repeats"
        assert shown.setting == f"{plain.setting}, shown the same images without labels"
        free, looking = ([[net[name] for net in made_of.nets] for made_of in (plain, shown)] for name in PAIR)
        assert free[0] == free[1]
        assert looking[0] != looking[1]
        assert looking[0][0] is not None
        assert plain.nets == same.nets == made(None)[0].nets
        other, jobs = made(read_unlabelled(flat(tmp_path / "others", seed=6), GREY))
        assert jobs == 2
        assert other.nets != shown.nets
        moved = images.rename(tmp_path / "moved")
        again, jobs = made(read_unlabelled(moved, GREY))
        assert (again.nets, jobs) == (shown.nets, 0)


def null(low=-1e9, high=-1e8):
    draw = np.random.default_rng(0)
    nets = [{name: float(draw.uniform(low, high)) for name in PAIR} for _ in range(39)]
    return Null(nets, {name: [[1.0, 2.0]] for name in PAIR}, dict.fromkeys(PAIR, 0.1), "made up")


@pytest.fixture
def command(labelled, network, tmp_path, monkeypatch):
    """`badnets scan` of one small net; `asked`: how many files workers were given each time; `kinds`: what clean nets were asked for."""
    (tmp_path / "net.safetensors").write_bytes(to_bytes(network))
    monkeypatch.setattr(_scan, "DETECTORS", PAIR)
    asked, kinds, made = [], [], {"null": null()}

    class Counting(Engine):
        def run(self, jobs):
            asked.append(len(jobs))
            return SerialEngine(_scan_work.perform).run(jobs)

    def population(kind, *rest):
        kinds.append(kind)
        return made["null"]

    monkeypatch.setattr(_scan_many, "_engine", lambda jobs: Counting())
    monkeypatch.setattr(_null, "null_population", population)

    def run(*arguments, dataset=("--dataset", "folder:size=8", "--data", labelled)):
        return tiny.cli("scan", tmp_path / "net.safetensors", *dataset, "--store", tmp_path / "store", *arguments)

    run.asked, run.kinds, run.made, run.store = asked, kinds, made, tmp_path / "store"
    return run


class TestCommand:
    def test_says_what_was_shown_and_what_is_unknown(self, command, images):
        done = command("--images", images)
        said = " ".join(done.out.split())
        assert done.status == 1
        assert f"Images: 30 without labels from {images}, shown to this net and to the clean nets in place of those of folder." in said
        assert "so the accuracy on these images is unknown; accuracy and preparation were checked on labelled images of folder." in said
        assert "its answers to the 30 images without labels are 3 of its 3 classes" in said
        assert "whether these, without labels, are what it is made for" in said
        assert len(command.kinds[0].images.x_NCHW) == 30

    def test_nothing_found(self, command, images):
        command.made["null"] = null(1e8, 1e9)
        assert command("--images", images).status == 0

    def test_json_sarif_and_page_say_it(self, command, images, tmp_path):
        done = command("--images", images, "--json", "--sarif", tmp_path / "x.sarif", "--html", tmp_path / "x.html")
        shown = json.loads(done.out)["images"]
        assert shown["sha256"] == read_unlabelled(images, GREY).sha256
        assert (shown["number"], shown["read"], shown["files"], shown["folder"]) == (30, 30, 30, str(images))
        about = json.loads((tmp_path / "x.sarif").read_text())["runs"][0]["properties"]["unlabelledImages"]
        assert "accuracy on these images is unknown" in about["told"]
        assert "accuracy on these images is unknown" in text_of((tmp_path / "x.html").read_text())
        (tmp_path / "two").mkdir()
        for name in "ab":
            shutil.copy(tmp_path / "net.safetensors", tmp_path / "two" / name)
        assert "accuracy on these images is unknown" in " ".join(command(tmp_path / "two", "--images", images).out.split())
        record = json.loads(command(tmp_path / "two", "--images", images, "--json").out)
        assert record["images"] == shown
        assert {item["verdict"]["images"]["sha256"] for item in record["items"]} == {shown["sha256"]}

    def test_nothing_is_said_of_images_where_they_had_labels(self, command):
        done = command("--json")
        assert json.loads(done.out)["images"] is None
        assert "Images:" not in command().out

    def test_answers_are_not_mixed(self, command, images, tmp_path):
        """With labels, without, and with other images: each is asked once, kept, and put into a folder of its own."""
        other, scores = flat(tmp_path / "others", seed=6), []
        for arguments in ((), ("--images", images), ("--images", other)) * 2:
            found = json.loads(command(*arguments, "--json").out)
            scores.append({line["detector"]: line["score"] for line in found["lines"]})
        assert command.asked == [1, 1, 1]
        assert scores[:3] == scores[3:]
        assert len({one[PAIR[0]] for one in scores}) == 1
        assert len({one[PAIR[1]] for one in scores}) == 3
        assert len([place for place in (command.store / "scans").iterdir() if (place / "scan.html").exists()]) == 3

    @pytest.mark.parametrize(
        ("spoil", "code"),
        [
            (lambda root: [path.unlink() for path in root.iterdir()], "E-FEW"),
            (lambda root: (root / "bad.png").write_bytes(b"junk"), "E-IMAGE"),
            (lambda root: (root / "cat").mkdir(), "E-FOLDER"),
            (lambda root: Image.new("RGB", (8, 8), (9, 90, 200)).save(root / "photo.png"), "E-SHAPE"),
        ],
    )
    def test_what_is_refused_is_one_line(self, command, images, spoil, code):
        spoil(images)
        done = command("--images", images)
        assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
        assert done.err.startswith(f"error {code} ")
        assert command.asked == []

    def test_what_cannot_be_meant(self, command, images, labelled):
        for arguments, dataset, said in (
            ((), ("--data", images), "E-LABELS --data: .* holds images and no class folders, .*--dataset NAME --images DIR"),
            ((), ("--dataset", "mnist", "--data", images), "E-LABELS"),
            (("--images", images), (), "E-USAGE expected beside --images the data set that the net is for"),
            (("--images", images / "absent"), ("--data", labelled), "E-DATA --images names .*absent"),
        ):
            done = command(*arguments, dataset=dataset)
            assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
            assert re.search(said, done.err), done.err
        done = tiny.cli("scan", "--dataset", labelled, "--images", images)
        assert (done.status, done.out) == (2, "")
        assert "E-USAGE expected a net that is to be shown --images, got none." in done.err

    def test_images_that_change_in_between_are_noticed(self, command, images, monkeypatch):
        kept = read_unlabelled(images, GREY)
        monkeypatch.setattr("badnets.cli._unlabelled.read", lambda *args: kept)
        (images / "000-0.png").unlink()
        unlabelled._again.cache_clear()
        done = command("--images", images)
        assert (done.status, done.out) == (3, "")
        assert "E-CHANGED" in done.err


class TestStrangers:
    """The folder's name is text of a stranger's."""

    @pytest.fixture
    def record(self):
        shown = UnlabelledImages(folder=f"in/{samples.EVIL}", sha256="5" * 64, number=40, read=50, files=60, dataset="mnist")
        return samples.record(samples.EVIL, images=shown)

    def test_the_page_and_the_sarif_hold_text_alone(self, record):
        page, sarif = render_scan(record), render_sarif(record)
        assert "<script" not in page
        assert "<img src=x" not in page
        assert "40 without labels from" in text_of(page)
        assert "50 of 60 files, evenly taken, 10 copies left out" in text_of(page)
        jsonschema.validate(json.loads(sarif), SCHEMA)
        assert "\u202e" not in json.dumps(json.loads(sarif)["runs"][0]["properties"]["unlabelledImages"], ensure_ascii=False)
