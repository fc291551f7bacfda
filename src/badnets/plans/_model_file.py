"""A net in a model file, as a defender gets it: which architecture it is, its weights, its hash, and how its input was prepared.

The file, or the folder that is one model, is read in a sandbox, strictly (see `intake`). What a file says of itself (metadata) is not read:
it may lie, and of our own planted nets it tells the secret. What a folder's config says chooses among what fits, and is told. Nets beyond
the catalogue are lists of layers or ViTs, see `_outside`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from badnets.core.errors import RefusedError, UsageError
from badnets.intake import zoo
from badnets.intake.arch_file import Architecture
from badnets.intake.hub_card import Card
from badnets.intake.hub_read import reordered
from badnets.intake.not_built import not_built
from badnets.intake.reasons import quoted
from badnets.intake.sandbox import read_model
from badnets.intake.weights import Weights
from badnets.plans._outside import NOT_BUILT, outside_nets
from badnets.plans._preparation import Preparation, fit_preparation, in_range, prepare, read_reversed
from badnets.plans._recognise import Normalization, load, recognise

if TYPE_CHECKING:
    from badnets.core.confine import Level
    from badnets.core.types import Estimate
    from badnets.datasets._base import ImageSet
    from badnets.intake.sandbox import Reading
    from badnets.nets._base import Network


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A net that was read: `net` is its catalogue entry with fields, as plain values; `sandbox` says what kept the reader in; `accuracy`
    is that on clean images of the data set."""

    path: Path
    sha256: str
    net: dict[str, Any]
    network: Network
    format: str = "safetensors"
    sandbox: str = ""
    notes: tuple[str, ...] = ()
    accuracy: Estimate | None = None


VIT = "vit"
KNOWN = ("ResNets of torchvision, timm and transformers", "plain ViTs of the same", "VGG", "chains", "perceptrons", "our own nets")
"""What a stranger's tensors are compared with."""


class Hints(NamedTuple):
    """What the caller says of a net. `arch`: an architecture, from a file; `channels`: in which order the net reads colours."""

    arch: Architecture | None = None
    channels: str = "rgb"


class _Choice(NamedTuple):
    """A net that the file's tensors may be those of."""

    title: str
    fields: dict[str, Any]
    network: Network


def open_model(
    path: Path,
    data: ImageSet,
    net: dict[str, Any] | None = None,
    *,
    normalization: Normalization | None = None,
    require_sandbox: bool = False,
    hints: Hints = Hints(),
) -> ModelFile:
    """The net in `path` for images and classes of `data`: of the architecture named, or of the one that its tensors fit.

    The file is read in a sandbox; the net is tried on clean images in this process, see `intake.running` for another.
    `normalization` is used where the file has none. Raises UsageError (no such file, E-ARCH), RefusedError (every code of
    `intake.reasons`; E-NAN: NaN or infinite weights; E-WEIGHTS: fits no architecture; E-CLASSES; E-PREPARATION: it only guesses).
    """
    return read_net(path, net, require_sandbox=require_sandbox, hints=hints).with_layers(data).as_net(data, normalization)


def read_net(path: Path, net: dict[str, Any] | None = None, *, require_sandbox: bool = False, hints: Hints = Hints()) -> NetFile:
    """Reads the file, in a sandbox; nothing is computed with what it holds."""
    if net is not None and hints.arch is not None:
        raise UsageError("E-USAGE", "expected a net or an architecture file, got both.", hint="Leave out --net or --arch.")
    return NetFile(path, read_model(path, require=require_sandbox), net, hints, require_sandbox=require_sandbox)


@dataclass(frozen=True, eq=False)
class NetFile:
    """A file that was read, and what the caller says of it."""

    path: Path
    reading: Reading
    net: dict[str, Any] | None
    hints: Hints
    require_sandbox: bool = False

    @property
    def sha256(self) -> str:
        return self.reading.weights.sha256

    @property
    def shown(self) -> str:
        """Its name, for messages."""
        return quoted(self.path.name, 100)[1:-1]

    def with_layers(self, data: ImageSet) -> NetFile:
        """The same where timm's architecture was named: followed through timm, which reads and writes too much to be confined.

        Nothing of the file takes part. Raises UsageError and RefusedError (E-ARCH).
        """
        if self.net is None or self.net["kind"] != zoo.KIND or self.reading.weights.layers:
            return self
        try:
            layers = zoo.timm_layers(self.net["name"], data.shape, data.num_classes)
        except RefusedError as error:
            raise RefusedError(error.code, f"{self.shown}: {error.message}", hint=error.hint) from error
        return replace(self, net=None, hints=self.hints._replace(arch=layers))

    def as_net(self, data: ImageSet, normalization: Normalization | None = None, ran: Level | None = None) -> ModelFile:
        """The net, after it was tried on clean images. `ran`: what keeps this process in, where it was confined for the purpose.

        Raises what `open_model` does.
        """
        weights = self.reading.weights
        if bad := weights.not_finite:
            what = f"{len(bad)} of {len(weights.tensors)} tensors hold NaN or infinity, the first {quoted(bad[0])}"
            hint = "Such a net answers nothing of use; fetch it again."
            raise RefusedError("E-NAN", f"{self.shown}: not analysable: {what}.", hint=hint)
        try:
            found = self._tried(_of_card(weights, data), data, normalization)
        except RefusedError as error:
            raise RefusedError(error.code, f"{self.shown}: {error.message}", hint=error.hint) from error
        return replace(found, sandbox=_kept_in(self.reading.level, ran))

    def _tried(self, weights: Weights, data: ImageSet, normalization: Normalization | None) -> ModelFile:
        choices, notes, normalized = _choices(weights, data, self.net, self.hints.arch)
        channels = self.hints.channels
        given = _given(choices[0].network, data, normalization if not normalized else None, channels, kept=normalized)
        if weights.card is not None and weights.card.mean and not normalized and normalization is None:
            given = Preparation(f"{weights.card.says} says", weights.card.mean, weights.card.std, given.bgr)
            normalized = True
        fitted = fit_preparation([(c.title, c.network) for c in choices], given, data, sure=normalized or normalization is not None)
        chosen = choices[fitted.number]
        prepare(chosen.network, fitted.preparation)
        if fitted.preparation.bgr:
            read_reversed(chosen.network)
            notes = [*notes, "its first layer now reads RGB"]
        found = ModelFile(self.path, weights.sha256, chosen.fields, chosen.network, weights.format, accuracy=fitted.accuracy)
        return replace(found, notes=(*weights.notes, *notes, *fitted.notes))


def _kept_in(read: Level, ran: Level | None) -> str:
    if ran is None:
        return f"{read}, for reading it"
    return f"{read}, for reading and for running it" if str(read) == str(ran) else f"{read}, for reading it; {ran}, for running it"


def _choices(
    weights: Weights, data: ImageSet, net: dict[str, Any] | None, arch: Architecture | None
) -> tuple[list[_Choice], list[str], bool]:
    """(nets that fit, notes, whether the file says how its input is normalised)."""
    from badnets.core import registry
    from badnets.nets._base import Net

    refused: RefusedError | None = None
    if weights.layers:
        if net is not None or arch is not None:
            raise UsageError("E-USAGE", f"{weights.format} says itself what the net is.", hint="Leave out --net and --arch.")
        arch = Architecture(f"the graph of {weights.format}", [dict(layer) for layer in weights.layers], weights.image)
    if arch is None:
        try:
            own = recognise(weights, data, net)
        except RefusedError as error:
            if error.code != "E-WEIGHTS" or (net is not None and net["kind"] != VIT):
                raise
            refused = error
        else:
            return [_Choice(str(own.fields["kind"]), own.fields, own.network)], own.notes, own.normalized
    outside = outside_nets(weights if net is None else _as_named(weights, net), data, arch)
    if not outside and refused is not None:
        if why := not_built(weights.tensors):
            named = f"config.json names the architecture {quoted(weights.card.architecture)}, and its" if weights.card else "the"
            raise RefusedError(refused.code, f"{named} weights are of layers that are not built: {why}.", hint=NOT_BUILT)
        raise refused if weights.card is None or not weights.card.architecture else _unknown(weights.card, refused)
    choices = []
    for one in outside:
        entry = registry.parse("nets", one.fields)
        assert isinstance(entry, Net)
        choices.append(_Choice(one.title, one.fields, load(entry, one.weights, one.names, data)))
    notes = ["names and shapes of all its tensors match", *dict.fromkeys(note for one in outside for note in one.notes)]
    return choices, notes, {"mean", "std"} <= weights.tensors.keys()


def _of_card(weights: Weights, data: ImageSet) -> Weights:
    """The weights with classes in the order of the data set's, once the card speaks of such images and classes. Raises RefusedError."""
    card = weights.card
    if card is None:
        return weights
    if card.num_classes is not None and card.num_classes != data.num_classes:
        what = f"config.json says {card.num_classes} classes, {data.name} has {data.num_classes}."
        raise RefusedError("E-CLASSES", what, hint="Name its own data set.")
    channels = card.channels or len(card.mean) or data.shape[0]
    if channels != data.shape[0]:
        what = f"config.json says images of {channels} channels, those of {data.name} have {data.shape[0]}."
        raise RefusedError("E-SHAPE", what, hint="Name its own data set.")
    return reordered(weights, data.classes)


def _as_named(weights: Weights, net: Mapping[str, Any]) -> Weights:
    """The weights with a card that says what the caller says of a ViT."""
    card = weights.card or Card(library="unknown")
    told: dict[str, Any] = {field: net[field] for field in ("heads", "activation", "eps") if field in net}
    told |= {"pool": "avg"} if net.get("pool") == "mean" else {}
    told |= {"image": (net["size"], net["size"])} if net.get("size") else {}
    return replace(weights, card=card.model_copy(update=told))


def _unknown(card: Card, refused: RefusedError) -> RefusedError:
    """For a net whose architecture has a name, which says more than what it is nearest to."""
    what = f"config.json names the architecture {quoted(card.architecture)}, and its tensors are those of none that is known:"
    timm = f"Name it with --net timm:{quoted(card.architecture)[1:-1]}, or describe" if card.library == zoo.KIND else "Describe"
    hint = f"{timm} its layers with --arch FILE.toml; badnets convert writes its tensors as one file."
    return RefusedError(refused.code, f"{what} {', '.join(KNOWN)}.", hint=hint)


def _given(network: Network, data: ImageSet, normalization: Normalization | None, channels: str, *, kept: bool) -> Preparation:
    bgr = channels == "bgr"
    if bgr and data.shape[0] != 3:
        raise UsageError("E-CHANNELS", f"images of {data.name} have {data.shape[0]} channels, not red, green and blue.", hint="Use rgb.")
    if normalization is not None:
        mean, std = normalization
        if len(mean) != data.shape[0] or len(std) != data.shape[0] or min(std) <= 0:
            what = f"expected {data.shape[0]} means and {data.shape[0]} positive deviations, got {list(mean)} and {list(std)}."
            raise UsageError("E-NORM", what, hint="As --normalize 0.1307/0.3081.")
        return Preparation("--normalize says", tuple(mean), tuple(std), bgr)
    if kept:
        return Preparation("the file says", tuple(network.mean.tolist()), tuple(network.std.tolist()), bgr)
    return replace(in_range("0..1", data.shape[0]), bgr=bgr)
