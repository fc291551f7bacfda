"""What a model folder's config.json and preprocessor_config.json say of a net, read strictly: known fields only, in their types and ranges.

It is what a stranger says: it chooses among architectures of ours and a preparation that is then measured, and nothing of it is run. Code
that it names is told, not looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, final

import pydantic
from pydantic import Field

from badnets.intake.hub_folder import CONFIG, PREPARATION
from badnets.intake.reasons import quoted, refuse
from badnets.intake.strict_json import STRING, parsed

_MOST_BRACKETS, _MOST_COMMAS, _DEEPEST = 10_000, 200_000, 32
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_BRACKETS = re.compile(rb"[\[\]{}]")
_PLACEHOLDER = re.compile(r"LABEL_\d+")

_Size = Annotated[int, Field(ge=1, le=4_096)]
_Channels = Annotated[int, Field(ge=1, le=64)]
_Text = Annotated[str, Field(max_length=200)]


@final
class Card(pydantic.BaseModel):
    """`architecture`: its name there; `image`: height and width, and whether images are `resized` to them; `mean`, `std`: of pixels in
    0..1, one a channel, and which file `says` so; the rest are fields that shapes do not show, None where nothing is said."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    library: Literal["transformers", "timm", "unknown"]
    architecture: _Text = ""
    num_classes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    classes: tuple[_Text, ...] = ()
    channels: _Channels | None = None
    image: tuple[_Size, _Size] | None = None
    resized: bool = False
    mean: tuple[Annotated[float, Field(ge=-1e4, le=1e4)], ...] = ()
    std: tuple[Annotated[float, Field(gt=1e-6, le=1e6)], ...] = ()
    says: str = ""
    heads: Annotated[int, Field(ge=1, le=256)] | None = None
    activation: _Text | None = None
    eps: Annotated[float, Field(gt=0, le=1)] | None = None
    pool: _Text | None = None
    first_halves: bool | None = None
    bottleneck_halves: bool | None = None


def read_card(config: bytes, preparation: bytes | None) -> tuple[Card, list[str]]:
    """(what they say, notes on what was not looked at). Raises RefusedError (E-JSON, E-DUPLICATE, E-MODEL-FOLDER)."""
    told = read_json(config, CONFIG)
    notes = _code(told, CONFIG)
    fields = _timm(_Fields(told, CONFIG)) if isinstance(told.get("architecture"), str) else _transformers(_Fields(told, CONFIG))
    if preparation is not None:
        how = read_json(preparation, PREPARATION)
        notes += _code(how, PREPARATION)
        fields |= _prepared(_Fields(how, PREPARATION), fields)
    try:
        card = Card(**fields)
    except pydantic.ValidationError as error:
        item = error.errors()[0]
        place = fields["says"] if item["loc"][0] in ("mean", "std") else CONFIG
        what = f"{'.'.join(map(str, item['loc']))}: {quoted(item['msg'], 120)[1:-1]}, got {quoted(item['input'])}"
        raise refuse("E-MODEL-FOLDER", f"{place}: {what}") from error
    if card.classes and card.num_classes != len(card.classes):
        raise refuse("E-MODEL-FOLDER", f"{CONFIG}: it has names for {len(card.classes)} classes and says that there are {card.num_classes}")
    if len(card.mean) != len(card.std) or (card.channels and len(card.mean) not in (0, card.channels)):
        what = f"expected a mean and a deviation for each channel, got {len(card.mean)} and {len(card.std)}"
        raise refuse("E-MODEL-FOLDER", f"{card.says}: {what}")
    return card, notes


def read_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object; not nested deep, no key twice, no NaN. Raises RefusedError, naming the file."""
    # Before the parser makes objects of it: few bytes of brackets would become much memory.
    bare = STRING.sub(b"", data)
    depth = deepest = 0
    for number, bracket in enumerate(_BRACKETS.finditer(bare)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > _DEEPEST or number > 2 * _MOST_BRACKETS:
            raise refuse("E-JSON", f"{name}: it is nested deeper, or has more lists, than such files do")
    if bare.count(b",") > _MOST_COMMAS:
        raise refuse("E-JSON", f"{name}: it has more values than such files do")
    return parsed(data, f"{name}: it")


def _code(told: Mapping[str, Any], name: str) -> list[str]:
    named = [key for key in _CODE if told.get(key)]
    return [f"{name} names code that was not looked at: {', '.join(map(quoted, named))}"] if named else []


class _Fields:
    """Fields of a file, each in its type or refused."""

    def __init__(self, told: Mapping[str, Any], name: str) -> None:
        self.told, self.name = told, name

    def get(self, key: str, kinds: tuple[type, ...], words: str) -> Any:
        """The value, None where there is none."""
        value = self.told.get(key)
        if value is None or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))):
            return value
        raise refuse("E-MODEL-FOLDER", f"{self.name}: expected {words} as {key}, got {quoted(value)}")

    def whole(self, key: str) -> int | None:
        return self.get(key, (int,), "a whole number")

    def number(self, key: str) -> float | None:
        found = self.get(key, (int, float), "a number")
        return None if found is None else _float(found)

    def text(self, key: str) -> str | None:
        return self.get(key, (str,), "a text")

    def flag(self, key: str) -> bool | None:
        return self.get(key, (bool,), "true or false")

    def table(self, key: str) -> _Fields:
        return _Fields(self.get(key, (dict,), "a table") or {}, self.name)

    def row(self, key: str, good: Callable[[Any], bool], words: str) -> list[Any] | None:
        """A list of such values."""
        found = self.get(key, (list,), f"a list of {words}")
        if found is not None and not all(good(item) for item in found):
            raise refuse("E-MODEL-FOLDER", f"{self.name}: expected a list of {words} as {key}, got {quoted(found)}")
        return found

    def wholes(self, key: str, count: int) -> tuple[int, ...] | None:
        """So many whole numbers; one counts for all."""
        if isinstance(self.told.get(key), int):
            return (self.whole(key) or 0,) * count
        found = self.row(key, _is_whole, "whole numbers")
        if found is not None and len(found) != count:
            raise refuse("E-MODEL-FOLDER", f"{self.name}: expected {count} numbers as {key}, got {len(found)}")
        return None if found is None else tuple(found)

    def numbers(self, key: str, channels: int) -> tuple[float, ...] | None:
        """A number for each channel."""
        if isinstance(self.told.get(key), int | float):
            return (self.number(key) or 0.0,) * channels
        found = self.row(key, _is_number, "numbers")
        return None if found is None else tuple(map(_float, found))


def _float(value: float) -> float:
    return float(value) if abs(value) < 1e300 else math.inf  # a whole number may be larger than any float


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _transformers(told: _Fields) -> dict[str, Any]:
    names = told.row("architectures", lambda item: isinstance(item, str), "texts")
    labels = told.table("id2label").told
    classes = [labels.get(str(number)) for number in range(len(labels))]
    if not all(isinstance(one, str) for one in classes):
        raise refuse("E-MODEL-FOLDER", f"{told.name}: expected names of the classes 0, 1, ... as id2label, got {quoted(list(labels)[:3])}")
    count = told.whole("num_labels")
    named = classes if not all(_PLACEHOLDER.fullmatch(str(one)) for one in classes) else []
    return {
        "library": "transformers" if names else "unknown",
        "architecture": names[0] if names else "",
        "num_classes": count if count is not None else len(classes) or None,
        "classes": tuple(classes) if count is not None and classes and count != len(classes) else tuple(named),
        "channels": told.whole("num_channels"),
        "image": told.wholes("image_size", 2),
        "heads": told.whole("num_attention_heads"),
        "activation": told.text("hidden_act"),
        "eps": told.number("layer_norm_eps"),
        "first_halves": told.flag("downsample_in_first_stage"),
        "bottleneck_halves": told.flag("downsample_in_bottleneck"),
    }


def _timm(told: _Fields) -> dict[str, Any]:
    about, more = told.table("pretrained_cfg"), told.table("model_args")
    size = about.wholes("input_size", 3)
    side = more.wholes("img_size", 2)
    channels = more.whole("in_chans") or (size[0] if size else None)
    names = told.row("label_names", lambda item: isinstance(item, str), "texts") or []
    mean, std = (about.numbers(key, channels or 3) for key in ("mean", "std"))
    both = mean is not None and std is not None
    return {
        "library": "timm",
        "architecture": told.text("architecture"),
        "num_classes": told.whole("num_classes"),
        "classes": tuple(names),
        "channels": channels,
        "image": side or (size[1:] if size else None),
        "resized": about.flag("fixed_input_size") is True,
        "mean": mean if both else (),
        "std": std if both else (),
        "says": f"pretrained_cfg in {CONFIG}" if both else "",
        "heads": more.whole("num_heads"),
        "pool": told.text("global_pool"),
    }


def _prepared(how: _Fields, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of the preparation says: pixels in 0..255 are scaled, then normalised, unless it says not to."""
    channels = known.get("channels") or 3
    scale = how.number("rescale_factor")
    scale = 255.0 * (1 / 255 if scale is None else scale) if how.flag("do_rescale") is not False else 255.0
    if not 1e-6 < scale < 1e6:
        raise refuse("E-MODEL-FOLDER", f"{how.name}: expected a positive rescale_factor, got {quoted(scale / 255)}")
    mean, std = how.numbers("image_mean", channels), how.numbers("image_std", channels)
    found: dict[str, Any] = {}
    if how.flag("do_normalize") is False:
        mean, std = (0.0,) * channels, (1.0,) * channels
    if mean is not None and std is not None:
        found = {"mean": tuple(m / scale for m in mean), "std": tuple(s / scale for s in std), "says": how.name}
    size = _side(how) if how.flag("do_resize") is not False else None
    return found | ({"image": known.get("image") or size, "resized": True} if size else {})


def _side(how: _Fields) -> tuple[int, ...] | None:
    """Height and width that images are brought to."""
    crop = how.flag("do_center_crop") is True and how.told.get("crop_size") is not None
    key = "crop_size" if crop else "size"
    if not isinstance(how.told.get(key), dict):
        return how.wholes(key, 2)
    size = how.table(key)
    side = size.whole("shortest_edge")
    height, width = size.whole("height"), size.whole("width")
    return (side, side) if side is not None else (height, width) if height is not None and width is not None else None
