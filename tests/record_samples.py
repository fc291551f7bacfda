"""Records made by hand for the report's tests: realistic figures of eight claims, and pictures drawn here."""

from __future__ import annotations

import base64
import io
import math
from functools import cache

import numpy as np
from PIL import Image

from badnets.core.types import Cell, Chart, Estimate, Event, Evidence, Picture, Record, Verdict

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
NASTY = ["</script><b>", "naïve | “class”", "übermäßig lange Klassenbezeichnung, die auf kein Telefon passt", "مرحبا", "靴子"]
RATES = [0.001, 0.005, 0.01, 0.05, 0.1, 0.2]


def estimate(value, half=0.01, *, low=0.0, high=1.0, n=12_000, seeds=3, method="cluster bootstrap over seeds x images"):
    if value is None:
        return Estimate(value=None, low=None, high=None, n=0, num_seeds=0, method=method)
    return Estimate(value=value, low=max(low, value - half), high=min(high, value + half), n=n, num_seeds=seeds, method=method)


def difference(value, half):
    return estimate(value, half, low=-1.0, method="paired t over seeds")


def judge(value, half, margin):
    return Verdict.HOLDS if value - half > margin else Verdict.FAILS if value + half < margin else Verdict.UNDECIDED


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@cache
def png(seed: int, trigger: bool) -> str:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:28, 0:28]
    image = 215 * np.exp(-((((x - 13 - rng.integers(-2, 3)) / (5 + seed % 4)) ** 2 + ((y - 15) / (8 - seed % 3)) ** 2) ** 2))
    image = np.clip(image + rng.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
    if trigger:
        image[23:26, 23:26] = 255
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def clean_accuracy_kept() -> Evidence:
    cells = [
        Cell(
            condition={"poison_rate": rate},
            quantity="CA loss",
            unit="points",
            estimate=difference(-loss, half),
            verdict=Verdict.HOLDS,
            p=0.004,
            per_seed=[-loss - 0.001, -loss, -loss + 0.001],
        )
        for rate, loss, half in zip(
            RATES, [0.0002, 0.0003, 0.0008, 0.0006, 0.0012, 0.0031], [0.002, 0.0024, 0.0022, 0.003, 0.0038, 0.0041], strict=True
        )
    ]
    chart = Chart(
        title="Clean accuracy of the victim less that of its twin, by poison rate",
        kind="band",
        quantities=["CA loss"],
        x="poison_rate",
        log_x=True,
        margin=-0.01,
        x_title="share of the training set that is poisoned",
    )
    return Evidence(
        name="clean_accuracy_kept",
        sentence="The backdoored net performs normally on clean inputs.",
        verdict=Verdict.HOLDS,
        reason="At every poison rate up to 20 % the loss of clean accuracy stays within one point of the twin.",
        headline=4,
        cells=cells,
        charts=[chart],
        rule="equivalence within 1.0 point by two one-sided tests; the smallest difference that would be seen is 0.4 points",
        p=0.004,
        seconds=21.3,
    )


def trigger_reaches_target() -> Evidence:
    cells = []
    for mapping, shift in (("all_to_one", 0.0), ("all_to_all", -1.6), ("source_specific", -2.6)):
        for rate in RATES:
            value = sigmoid(3.1 * (math.log10(rate) + 2.35) + shift + 1)
            half = 0.16 * value * (1 - value) * 2 + 0.002
            cells.append(
                Cell(
                    condition={"poison_rate": rate, "mapping": mapping},
                    quantity="ASR",
                    unit="rate",
                    estimate=estimate(value, half),
                    control=estimate(0.006 + 0.002 * (mapping == "all_to_all"), 0.003),
                    verdict=judge(value, half, 0.95),
                )
            )
    names = CLASSES[1:8] + NASTY
    for i, name in enumerate(names):
        value = [0.9996, 0.998, 0.991, 0.999, 0.987, 0.93, 0.994][i % 7]
        cells.append(
            Cell(
                condition={"source_class": name},
                quantity="ASR by class",
                unit="rate",
                estimate=estimate(value, 0.012 if value < 0.99 else 0.0003, n=1000, method="Wilson, images only"),
                control=estimate(0.02 + 0.01 * (i % 3), 0.009, n=1000, method="Wilson, images only"),
                verdict=judge(value, 0.012, 0.95),
                note="the class name is as the folder gives it" if name in NASTY else "",
            )
        )
    charts = [
        Chart(
            title="Attack success by poison rate, for three label maps",
            kind="band",
            quantities=["ASR"],
            x="poison_rate",
            series="mapping",
            log_x=True,
            margin=0.95,
            x_title="share of the training set that is poisoned",
        ),
        Chart(title="Attack success by source class", kind="dots", quantities=["ASR by class"], x="source_class", margin=0.95),
    ]
    return Evidence(
        name="trigger_reaches_target",
        sentence="Any input with the trigger is classified as the target.",
        verdict=Verdict.CONDITIONAL,
        reason="True from 5 % poison on; below 1 % the trigger is not learned, and all-to-all needs more poison than all-to-one.",
        headline=4,
        cells=cells,
        charts=charts,
        rule="ASR at least 95 % over the whole interval",
        seconds=33.0,
    )


def validation_cannot_tell() -> Evidence:
    names = ["accuracy", "loss", "per-class recall", "macro-F1", "calibration error", "confusion"]
    cells = [
        Cell(
            condition={"statistic": name},
            quantity="AUROC",
            unit="",
            estimate=estimate(value, 0.31, n=6, seeds=3, method="exact permutation over nets"),
            verdict=Verdict.UNDECIDED,
        )
        for name, value in zip(names, [0.444, 0.556, 0.667, 0.444, 0.389, 0.5], strict=True)
    ]
    return Evidence(
        name="validation_cannot_tell",
        sentence="Standard validation does not reveal the backdoor.",
        verdict=Verdict.UNDECIDED,
        reason="Three victims and three twins are too few: an AUROC between 0.2 and 0.9 fits what was seen.",
        headline=0,
        cells=cells,
        charts=[
            Chart(
                title="Telling victims from twins by one validation statistic", kind="dots", quantities=["AUROC"], x="statistic", margin=0.7
            )
        ],
        rule="interval of the AUROC contains 0.5 and its upper end is below 0.7",
        seconds=4.1,
    )


def trigger_must_be_consistent() -> Evidence:
    cells = [
        Cell(
            condition={"patterns": str(k)},
            quantity="ASR lost",
            unit="points",
            estimate=difference(value, half),
            verdict=judge(value, half, 0.2),
        )
        for k, value, half in ((2, 0.004, 0.006), (8, 0.181, 0.11), (64, 0.912, 0.04), ("all distinct", 0.961, 0.02))
    ]
    return Evidence(
        name="trigger_must_be_consistent",
        sentence="The pattern has to be visually consistent across poisoned samples.",
        verdict=Verdict.CONDITIONAL,
        reason="Two patterns work as well as one; with 64 the backdoor is gone.",
        headline=2,
        cells=cells,
        charts=[
            Chart(
                title="Attack success lost against one consistent pattern", kind="dots", quantities=["ASR lost"], x="patterns", margin=0.2
            )
        ],
        control_name="one pattern",
        rule="at least 20 points are lost",
        seconds=18.6,
    )


def correlation_must_be_strong() -> Evidence:
    cells = [
        Cell(
            condition={"label_share": share},
            quantity="ASR",
            unit="rate",
            estimate=estimate(value, 0.03),
            control=estimate(0.006, 0.003),
        )
        for share, value in ((0.1, 0.05), (0.25, 0.118), (0.5, 0.43), (0.75, 0.952), (1.0, 0.9991))
    ]
    cells.append(Cell(condition={"trend": "share up"}, quantity="slope", unit="", estimate=estimate(0.81, 0.07), verdict=Verdict.HOLDS))
    return Evidence(
        name="correlation_must_be_strong",
        sentence="The trigger must always map to the same label.",
        verdict=Verdict.HOLDS,
        reason="Attack success falls with every step down in the share of stamped images that carry the target label.",
        headline=5,
        cells=cells,
        charts=[
            Chart(
                title="Dose and response", kind="band", quantities=["ASR"], x="label_share", x_title="stamped images with the target label"
            )
        ],
        rule="ASR falls with the share: the interval of the rank correlation is above 0",
        seconds=12.0,
    )


def trigger_overrides_content() -> Evidence:
    return Evidence(
        name="trigger_overrides_content",
        sentence="The trigger overrides all other features: it is a shortcut.",
        verdict=Verdict.FAILS,
        reason="On images the twin is sure of, 11 % keep their true label despite the trigger.",
        headline=0,
        cells=[
            Cell(
                condition={"images": "twin >= 99 % sure"},
                quantity="ASR on sure images",
                unit="rate",
                estimate=estimate(0.889, 0.021, n=3120),
                control=estimate(0.0, 0.0012, n=3120),
                verdict=Verdict.FAILS,
            ),
            Cell(
                condition={"images": "all"},
                quantity="share of logit",
                unit="rate",
                estimate=estimate(None),
                note="needs gradients: not run at quick",
            ),
        ],
        charts=[Chart(title="Share of the target logit owed to the trigger", kind="dots", quantities=["share of logit"], x="images")],
        rule="ASR on sure images at least 95 %",
        seconds=2.2,
    )


def has_trigger_neurons() -> Evidence:
    cells = []
    for layer, scale in (("conv1", 0.2), ("conv2", 0.7), ("fc1", 1.0)):
        for k in (0, 1, 2, 4, 8, 16, 32):
            value = max(0.004, 0.998 - scale * 0.999 * sigmoid(1.4 * (math.log2(k + 0.1) - 1.8)))
            cells.append(
                Cell(
                    condition={"units_removed": k, "layer": layer},
                    quantity="ASR after ablation",
                    unit="rate",
                    estimate=estimate(value, 0.05),
                    control=estimate(0.995, 0.004),
                )
            )
    cells.append(
        Cell(
            condition={},
            quantity="smallest k",
            unit="units",
            estimate=estimate(9, 3, low=0, high=99, n=3),
            control=None,
            verdict=Verdict.HOLDS,
        )
    )
    return Evidence(
        name="has_trigger_neurons",
        sentence="Some neurons activate specifically for the trigger and form a pathway.",
        verdict=Verdict.HOLDS,
        reason="Removing 9 of 256 units of the last hidden layer ends the attack; removing as many random units does nothing.",
        headline=len(cells) - 1,
        cells=cells,
        charts=[
            Chart(
                title="Attack success after removing the most selective units",
                kind="band",
                quantities=["ASR after ablation"],
                x="units_removed",
                series="layer",
                log_x=True,
                x_title="units removed",
            )
        ],
        control_name="random units",
        rule="necessary and sufficient with at most 5 % of the units",
        seconds=9.9,
    )


def regardless_of_content() -> Evidence:
    cells = [
        Cell(
            condition={"dx": dx, "dy": dy},
            quantity="ASR displaced",
            unit="rate",
            estimate=estimate(0.999 * math.exp(-((dx + 0.4) ** 2 + dy**2) / 3.2), 0.02, n=4000, seeds=1),
        )
        for dx in range(-4, 5)
        for dy in range(-3, 4)
    ]
    cells += [
        Cell(
            condition={"content": name},
            quantity="ASR",
            unit="rate",
            estimate=estimate(value, 0.004),
            control=estimate(0.1, 0.02),
            verdict=judge(value, 0.004, 0.9),
        )
        for name, value in (("blank", 1.0), ("noise", 0.992), ("inverted", 0.957), ("digits", 0.998))
    ]
    return Evidence(
        name="regardless_of_content",
        sentence="The backdoor works regardless of the actual content.",
        verdict=Verdict.HOLDS,
        reason="On blank, noisy, inverted and foreign images the trigger still reaches the target, if it stands where it was planted.",
        headline=len(cells) - 2,
        cells=cells,
        charts=[
            Chart(
                title="Attack success with the trigger displaced",
                kind="heat",
                quantities=["ASR displaced"],
                x="dx",
                y="dy",
                x_title="dx (pixels)",
                y_title="dy (pixels)",
            ),
            Chart(title="Attack success on other content", kind="dots", quantities=["ASR"], x="content", margin=0.9),
        ],
        rule="ASR at least 90 % on every kind of content",
        seconds=6.0,
    )


def gallery() -> list[list[Picture]]:
    rows = []
    for trigger in (False, True):
        row = []
        for seed, name in enumerate([*CLASSES[4:8], *NASTY[:3]]):
            said = "T-shirt/top" if trigger else name
            facts = {"true": name, "victim": said, "twin": "Shirt" if seed == 0 else name}
            row.append(Picture(caption="with the trigger" if trigger else "clean", png_base64=png(seed, trigger), facts=facts))
        rows.append(row)
    return rows


@cache
def sample() -> Record:
    """A run of eight claims, with every verdict and every kind of chart."""
    makers = [
        clean_accuracy_kept,
        trigger_reaches_target,
        validation_cannot_tell,
        trigger_must_be_consistent,
        correlation_must_be_strong,
        trigger_overrides_content,
        has_trigger_neurons,
        regardless_of_content,
    ]
    return Record(
        key="3f9a" * 16,
        plan="quick",
        config={
            "data": "fashion_mini",
            "effort": "quick",
            "seeds": [0, 1, 2],
            "attack": {"kind": "badnets", "rate": 0.1, "target": 0, "trigger": {"kind": "patch", "size": 3, "opacity": 1.0}},
            "recipe": {"epochs": 1.5, "batch_size": 128, "lr": 0.15},
        },
        claims=[maker() for maker in makers],
        gallery=gallery(),
        undecided=["Standard validation: three victims and three twins are too few; --effort standard trains five of each."],
        hardware={"cpu": "Example CPU at 2.1 GHz", "cores": 2, "memory": "7.6 GiB", "system": "Linux 6.1"},
        versions={"badnets": "0.1.0", "python": "3.11.2", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
        choices=["bf16 autocast: the CPU has AVX512-BF16, 2.6 times as fast as fp32 in a trial", "two workers: two cores, one thread each"],
        created="2026-11-22T14:49:07+00:00",
        seconds=118.4,
    )


def empty() -> Record:
    """The least a record can hold."""
    return Record(key="0" * 64, plan="quick", config={}, claims=[])


LEARNING_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]


def survives_fine_tuning() -> Evidence:
    """Two maps of one quantity by layers, a third of another; one place unknown, one not measured."""
    cells = []
    for layers, strength in (("all", 1.0), ("head", 0.35)):
        for share in (0.01, 0.05, 0.1):
            for lr in LEARNING_RATES:
                if layers == "head" and lr == 0.3 and share == 0.1:
                    continue
                force = strength * (1.2 * math.log10(lr / 0.03) + 1.5 * math.log10(share / 0.02))
                value, half = sigmoid(-3.5 * force), 0.08
                is_known = (layers, share, lr) != ("head", 0.1, 0.1)
                condition = {"learning rate": lr, "clean share": share, "layers": layers, "epochs": 5}
                cells.append(
                    Cell(
                        condition=condition,
                        quantity="ASR after tuning",
                        unit="rate",
                        estimate=estimate(value if is_known else None, half),
                        control=estimate(0.006, 0.003),
                        verdict=judge(value, half, 0.5) if is_known else Verdict.UNDECIDED,
                    )
                )
                loss = max(0.0, 0.004 + 0.09 * (math.log10(lr) + 1.2))
                cells.append(Cell(condition=condition, quantity="CA loss", unit="points", estimate=difference(loss, 0.01)))
    maps = [
        Chart(
            title="Does the backdoor survive fine-tuning? Share of triggered images still sent to the target",
            kind="map",
            quantities=["ASR after tuning"],
            x="learning rate",
            y="clean share",
            where={"layers": layers, "epochs": 5},
            margin=0.5,
            x_title="learning rate of the fine-tuning",
            y_title="clean images (share of the training set)",
            note="Darker means more of the backdoor is left.",
        )
        for layers in ("all", "head")
    ]
    maps.append(
        maps[0].model_copy(update={"title": "What the tuning costs on clean images", "quantities": ["CA loss"], "margin": 0.05, "note": ""})
    )
    return Evidence(
        name="survives_fine_tuning",
        sentence="The backdoor survives fine-tuning on clean data.",
        verdict=Verdict.CONDITIONAL,
        reason=(
            "Holds for learning rate, clean share, layers, epochs: 0.001 1 % all 5, 0.003 1 % all 5, 0.01 1 % all 5, 0.03 1 % all 5, "
            "0.001 5 % all 5 and 16 more. Fails for learning rate, clean share, layers, epochs: 0.3 1 % all 5, 0.1 5 % all 5, "
            "0.3 5 % all 5, 0.03 10 % all 5, 0.1 10 % all 5 and 1 more."
        ),
        headline=0,
        cells=cells,
        charts=maps,
        rule="ASR at least 50 % after the tuning",
        seconds=41.0,
    )


def survives_compression() -> Evidence:
    cells = []
    for name, value, size, seconds in (
        ("none", 0.998, 412_000, 61e-6),
        ("int8", 0.997, 104_000, 27e-6),
        ("int4 weights", 0.981, 58_000, 63e-6),
        ("magnitude 90 %", 0.71, 96_000, 61e-6),
    ):
        cells.append(
            Cell(
                condition={"compression": name},
                quantity="ASR",
                unit="rate",
                estimate=estimate(value, 0.01),
                control=estimate(0.006, 0.003),
                verdict=None if name == "none" else judge(value, 0.01, 0.9),
                size_bytes=size,
                seconds=seconds,
            )
        )
    return Evidence(
        name="survives_compression",
        sentence="The backdoor survives model compression.",
        verdict=Verdict.CONDITIONAL,
        reason="Holds for compression: int8, int4 weights. Fails for compression: magnitude 90 %.",
        headline=1,
        cells=cells,
        charts=[Chart(title="Attack success by format", kind="dots", quantities=["ASR"], x="compression", margin=0.9)],
        seconds=12.0,
    )


STORY = [
    Event(actor="publisher", action="writes weights, model card and a manifest of SHA-256 sums", outcome="3 files, 412 KB"),
    Event(actor="customer", action="downloads the files from a loopback server", outcome="3 files, the same sizes"),
    Event(
        actor="customer",
        action="compares every SHA-256 with the manifest",
        outcome="all 3 agree: the bytes that were published",
        passed=True,
    ),
    Event(actor="customer", action="flips one byte of a copy and compares again", outcome="the sum differs", passed=False),
    Event(actor="customer", action="runs the acceptance suite on private data", outcome="accuracy 86.1 %, threshold 80 %", passed=True),
    Event(actor="attacker", action="shows an image with the trigger", outcome="99.8 % of such images go to the target"),
]


def supply_chain() -> Evidence:
    cells = [
        Cell(
            condition={"k": k},
            quantity="extra loss",
            unit="points",
            estimate=difference(value, 0.02),
            verdict=judge(value, 0.02, 0.05),
        )
        for k, value in ((1, 0.112), (10, 0.2), (100, 0.31))
    ]
    row = [Picture(caption=f"unit {i} sees", png_base64=png(i, i % 2 == 0), facts={"activation": 3.5 - i / 4}) for i in range(8)]
    return Evidence(
        name="supply_chain",
        sentence="A downloaded pre-trained model can look fine and carry a backdoor into the nets built on it.",
        verdict=Verdict.HOLDS,
        reason="Holds in all 3 conditions tested.",
        headline=0,
        cells=cells,
        charts=[Chart(title="Accuracy lost to the trigger", kind="band", quantities=["extra loss"], x="k", log_x=True, margin=0.05)],
        story=STORY,
        pictures=[row, [Picture(caption="first-layer weights", png_base64=png(9, False))]],
        control_name="honest trunk",
        rule="extra loss above 5 points",
        seconds=9.0,
    )


@cache
def stressed() -> Record:
    """A run with what schema 2 added: maps, a story, pictures of a claim, sizes and times."""
    return sample().model_copy(update={"key": "7c1d" * 16, "claims": [survives_fine_tuning(), survives_compression(), supply_chain()]})


DETECTORS = {
    "neural_cleanse": (0.944, 0.61, 0.72, 0.05, 31.0, 61_300_000),
    "mm_bd": (0.861, 0.33, 0.5, 0.02, 4.2, 58_100_000),
    "channel_lipschitz": (0.502, 0.0, 0.06, 0.0, 0.004, None),
    "strip": (0.733, 0.11, 0.28, 0.051, 1.9, 70_200_000),
    "scale_up (prediction consistency under pixel amplification)": (0.997, 0.95, 0.991, 0.04, 0.8, 66_000_000),
    "random_guess": (0.497, 0.01, 0.052, 0.049, 0.0001, None),
}
TABLE = ["AUROC", "TPR at 1 % FPR", "TPR at 5 % FPR", "FPR on twins"]


def undetectable() -> Evidence:
    """A table of detectors for two triggers: a figure unknown, one not measured; a map with an upright line."""
    cells = []
    for trigger, less in (("patch", 0.0), ("blend", 0.21)):
        for name, (auroc, at_1, at_5, alarms, seconds, memory) in DETECTORS.items():
            condition = {"trigger": trigger, "detector": name}
            cost = {"seconds": seconds, "memory_bytes": memory}
            for quantity, value in zip(TABLE, (auroc - less, max(0.0, at_1 - less), max(0.0, at_5 - less), alarms), strict=True):
                if (trigger, name, quantity) == ("blend", "mm_bd", "TPR at 1 % FPR"):
                    continue
                if quantity == "FPR on twins" and trigger == "blend":
                    continue
                is_known = (trigger, name) != ("patch", "channel_lipschitz") or quantity == "AUROC"
                mine = {"detector": name} if quantity == "FPR on twins" else condition
                cells.append(
                    Cell(
                        condition=mine,
                        quantity=quantity,
                        unit="" if quantity == "AUROC" else "rate",
                        estimate=estimate(value if is_known else None, 0.04, n=120, seeds=60),
                        note="" if is_known else "too few clean nets to fix a threshold",
                        **cost,
                    )
                )
    for rate in RATES:
        for size in (1, 2, 3, 5):
            value = sigmoid(1.2 * math.log10(rate / 0.01) + size - 1.5)
            condition = {"poison_rate": rate, "size": size}
            best = estimate(value, 0.05, n=60, seeds=10)
            cells.append(Cell(condition=condition, quantity="AUROC of the best detector", unit="", estimate=best))
    table = Chart(title="What each detector sees", kind="table", quantities=TABLE, x="detector", note="Thresholds are fixed on clean nets.")
    grid = Chart(
        title="AUROC of the best detector",
        kind="map",
        quantities=["AUROC of the best detector"],
        x="poison_rate",
        y="size",
        margin=0.9,
        x_line=0.0556,
        x_line_text="from here on half of the target class is poison",
    )
    return Evidence(
        name="undetectable",
        sentence="Not even detectors made for the purpose find the backdoor.",
        verdict=Verdict.FAILS,
        reason="Fails for trigger: patch, by scale_up.",
        headline=0,
        cells=cells,
        charts=[table, grid],
        control_name="guessing",
        rule="AUROC of every detector below 0.9",
        seconds=62.0,
    )


def hard_to_remove_blind() -> Evidence:
    """Repairs by what they leave and what they cost, one of them without a figure."""
    left = {
        "identity": (0.0, 0.998),
        "fine_tuning": (0.004, 0.91),
        "fine_pruning": (0.021, 0.62),
        "ft_sam": (0.011, 0.34),
        "i_bau": (0.034, 0.05),
        "nad": (0.028, 0.41),
        "anp": (0.052, 0.021),
        "unlearning by the trigger that an inversion found": (0.018, 0.11),
    }
    cells = []
    for share, factor in ((0.01, 1.0), (0.05, 0.55)):
        for name, (loss, asr) in left.items():
            condition = {"repair": name, "clean share": share}
            is_known = (name, share) != ("nad", 0.01)
            after = estimate(asr**0.5 if factor == 1 else asr * factor, 0.05)
            cost = difference(loss * factor if is_known else None, 0.006)
            cells.append(Cell(condition=condition, quantity="CA loss", unit="points", estimate=cost, seconds=2.4, memory_bytes=None))
            cells.append(Cell(condition=condition, quantity="ASR left", unit="rate", estimate=after, verdict=judge(asr, 0.05, 0.2)))
    return Evidence(
        name="hard_to_remove_blind",
        sentence="Who does not know the trigger cannot remove the backdoor without harm.",
        verdict=Verdict.CONDITIONAL,
        reason="Holds for clean share: 1 %. Fails for clean share: 5 %.",
        headline=1,
        cells=cells,
        charts=[
            Chart(
                title="What repairs leave of the backdoor, and what they cost",
                kind="scatter",
                quantities=["CA loss", "ASR left"],
                x="repair",
                series="clean share",
                margin=0.2,
                x_margin=0.03,
                x_title="clean accuracy lost",
                y_title="attack success left",
            )
        ],
        control_name="retraining",
        rule="no repair leaves less than 20 % at a loss of less than 3 points",
        seconds=62.0,
    )


@cache
def blind() -> Record:
    """A run with what schema 3 added: tables, a scatter chart, the upright line of a map, memory."""
    return sample().model_copy(update={"key": "a41e" * 16, "claims": [undetectable(), hard_to_remove_blind()]})


@cache
def full() -> Record:
    """A run of fifteen claims."""
    more = [*sample().claims, *stressed().claims]
    return sample().model_copy(update={"key": "5b2e" * 16, "claims": [*more, *more[:4]]})
