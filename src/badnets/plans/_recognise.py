"""Which net of the catalogue a file's weights belong to: told by their names and shapes, never by what the file says of itself.

Widths are read off the shapes. What shapes do not show (the heads of a transformer, the scale of an output) keeps its default unless the
caller names it, and that is said. Not for nets of others: their layers have other names, see `_outside`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.intake.reasons import quoted
from badnets.intake.weights import Weights

if TYPE_CHECKING:
    import torch

    from badnets.datasets._base import ImageSet
    from badnets.nets._base import Net, Network

Normalization = tuple[Sequence[float], Sequence[float]]
"""Means and deviations, one a channel, of pixels in 0..1."""

OUTSIDE = ("layered", "vit")
"""Entries that nets of others come down to: any list of layers is one, and so is any plain ViT. `_outside` knows them."""
_BODY, _INPUT, _COUNTER = "body.", ("mean", "std"), ".num_batches_tracked"
_WIDTHS = ("width", "hidden")
_WIDEST, _MOST_WIDTHS = 8192, 32

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Fit:
    """A net of the catalogue against a file: what is in one and not in the other, and what has another shape."""

    net: Net
    missing: list[str]
    unexpected: list[str]
    different: list[str]

    @property
    def distance(self) -> int:
        return 2 * len(self.missing) + 2 * len(self.unexpected) + len(self.different)

    @property
    def is_whole(self) -> bool:
        """Whether every layer is there, in its shape, and nothing else."""
        return not (set(self.missing) - set(_INPUT) or self.unexpected or self.different)

    def __str__(self) -> str:
        parts = {"missing": self.missing, "not of it": self.unexpected, "of another shape": self.different}
        return "; ".join(f"{what} {_some(names)}" for what, names in parts.items() if names)


class Recognised(NamedTuple):
    """A net of the catalogue with the file's weights. `normalized`: whether the file says how its input is normalised."""

    network: Network
    fields: dict[str, Any]
    notes: list[str]
    normalized: bool


def recognise(weights: Weights, data: ImageSet, net: Mapping[str, Any] | None) -> Recognised:
    """The net for images and classes of `data`, with notes on what was matched; `net`: fields that the caller named.

    Raises RefusedError (E-WEIGHTS: fits none, and the nearest).
    """
    names, notes = _full_names(weights)
    shapes = {names[name]: tensor.shape for name, tensor in weights.tensors.items()}
    best: _Fit | None = None
    for name in [net["kind"]] if net else [one for one in registry.names("nets") if one not in OUTSIDE]:
        for fit in _fits(name, net, shapes, data):
            best = fit if best is None or fit.distance < best.distance else best
        if best and best.is_whole:
            break
    if best is None or not best.is_whole:
        raise _fits_none(best, data, named=net is not None)
    fields = _told(best.net) if net is None or net.keys() == {"kind"} else dict(net)
    if unseen := [f for f in type(best.net).model_fields if f not in (*_WIDTHS, "kind", *(net or {}))]:
        notes.append(f"taken by default, since shapes do not show them: {', '.join(f'{f}={getattr(best.net, f)}' for f in unseen)}")
    return Recognised(load(best.net, weights, names, data), fields, notes, not best.missing)


def _full_names(weights: Weights) -> tuple[dict[str, str], list[str]]:
    """Name in the file -> name in a net, which holds its layers as `body`."""
    if any(name.startswith(_BODY) for name in weights.tensors):
        return {name: name for name in weights.tensors}, []
    return {name: name if name in _INPUT else _BODY + name for name in weights.tensors}, ["names taken as those of the layers alone"]


def _fits(name: str, net: Mapping[str, Any] | None, shapes: Shapes, data: ImageSet) -> list[_Fit]:
    """How an architecture fits, at the widths of the caller or else at those that fit best."""
    from badnets.nets._base import Net

    try:
        entry = registry.parse("nets", dict(net) if net else name)
        assert isinstance(entry, Net)
        fit = _fit(entry, shapes, data)
    except UsageError:  # an image too small for it
        if net:
            raise
        return []
    if fit.different and (net is None or net.keys() == {"kind"}):
        sizes = sorted({size for shape in shapes.values() for size in shape if 0 < size <= _WIDEST})[:_MOST_WIDTHS]
        for field in (f for f in _WIDTHS if f in type(entry).model_fields):
            tried = [fit, *(_fit(fit.net.but(**{field: size}), shapes, data) for size in sizes if _builds(fit.net, field, size))]
            fit = min(tried, key=lambda one: one.distance)
    return [fit]


def _builds(net: Net, field: str, size: int) -> bool:
    heads = getattr(net, "heads", 1)
    return field != "width" or size % heads == 0


def _fit(net: Net, shapes: Shapes, data: ImageSet) -> _Fit:
    own = shapes_of(net, data)
    different = [name for name in own.keys() & shapes.keys() if own[name] != shapes[name]]
    return _Fit(net, sorted(own.keys() - shapes.keys()), sorted(shapes.keys() - own.keys()), sorted(different))


def shapes_of(net: Net, data: ImageSet) -> Shapes:
    """Names and shapes of what `net.build` would make, without making it.

    Here and not a method of nets: their sources are part of every run's key, and this changes no run.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        body = net._body(data.shape, data.num_classes)
    inner = {_BODY + name: tuple(value.shape) for name, value in body.state_dict().items()}
    return {**dict.fromkeys(_INPUT, (data.shape[0],)), **inner}


def _kind(net: Net) -> str:
    return type(net).model_fields["kind"].default


def _told(net: Net) -> dict[str, Any]:
    """Only what differs from the default, so that a net is called the same as if its name alone were given."""
    plain = type(net)()
    return {"kind": _kind(net), **{f: getattr(net, f) for f in _WIDTHS if hasattr(net, f) and getattr(net, f) != getattr(plain, f)}}


def load(net: Net, weights: Weights, names: Mapping[str, str], data: ImageSet) -> Network:
    """The net with the file's tensors, called by `names`. The normalisation, and counters of batches, may be missing."""
    from badnets.core.tensors import pack
    from badnets.nets._weights import load_into

    network = net.build(data.shape, data.num_classes, seed=0)
    own = network.state_dict()
    tensors = {names[name]: _cast(weights, name, own[names[name]]) for name in weights.tensors}
    if "std" in tensors and not bool((tensors["std"] > 0).all()):
        raise RefusedError("E-NORM", "the file normalises its input by a deviation that is not positive.", hint="Fetch it again.")
    spare = {name: value for name, value in own.items() if name in _INPUT or name.endswith(_COUNTER)}
    return load_into(network, pack({name: value.numpy() for name, value in (spare | tensors).items()}), name=_kind(net))


def _cast(weights: Weights, name: str, own: torch.Tensor) -> torch.Tensor:
    """A tensor of the file in the type that the net has; from a number with a point to a whole one is no such cast."""
    import numpy as np
    import torch

    tensor = weights.tensors[name]
    if tensor.is_float != own.is_floating_point():
        raise RefusedError("E-WEIGHTS", f"expected {quoted(name)} as {own.dtype}, got {tensor.dtype}.", hint="Check the file and the net.")
    data = tensor.to_float32() if tensor.is_float else tensor.data.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(data)).reshape(own.shape).to(own.dtype)


def _fits_none(best: _Fit | None, data: ImageSet, *, named: bool) -> RefusedError:
    shape = "x".join(map(str, data.shape))
    which = "not those of the net named" if named else "those of no architecture of the catalogue"
    near = f" Nearest: {_kind(best.net)}: {best}." if best else ""
    return RefusedError(
        "E-WEIGHTS",
        f"the weights are {which} for {shape} images and {data.num_classes} classes.{near}",
        hint="Name its data set, its net as in --net fast_resnet:width=8, or describe its layers with --arch FILE.toml.",
    )


def _some(names: list[str]) -> str:
    return ", ".join(map(quoted, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
