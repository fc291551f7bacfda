"""What a worker does with one file of a scan: read it in a sandbox, ask the detectors in another, return what they said as bytes.

No clean net is looked at here, so the answer serves a scan of any effort.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from badnets.core import registry
from badnets.core.config import Config, canonical
from badnets.core.confine import Level
from badnets.core.errors import RefusedError
from badnets.core.scanned import Opinion, path_text
from badnets.core.tensors import pack, unpack
from badnets.datasets._base import AnyDataset, Dataset, ImageSet
from badnets.intake import second_opinion
from badnets.intake.arch_file import Architecture
from badnets.intake.found import is_pickle
from badnets.intake.hub_folder import main_file
from badnets.intake.reasons import refuse
from badnets.intake.running import Message, run_confined
from badnets.intake.unlabelled import Handed, Unlabelled
from badnets.plans import _model_file
from badnets.plans._recognise import Normalization
from badnets.plans._scan import Heard, Said, Told, hear, with_images

HEARD, PICTURES = "heard", "pictures"


class Opening(Config):
    """How files are to be opened: what the caller said that no file says. `arch`: fields of an `Architecture`, as its file has them."""

    net: dict[str, Any] | None = None
    normalization: Normalization | None = None
    arch: dict[str, Any] | None = None
    channels: str = "rgb"
    require_sandbox: bool = False

    def read(self, path: Path) -> _model_file.NetFile:
        """The file, read. Raises UsageError and RefusedError."""
        hints = _model_file.Hints(Architecture(**self.arch) if self.arch else None, self.channels)
        return _model_file.read_net(path, self.net, require_sandbox=self.require_sandbox, hints=hints)


class Errand(Config):
    """One file, by its path (its bytes as in an address) and the SHA-256 that it had; what to ask; where the data set lies, and the images
    to be shown in place of its own, if any."""

    path: str
    sha256: str
    dataset: AnyDataset
    data: str | None
    opening: Opening
    detectors: tuple[str, ...]
    images: Handed | None = None


def perform(payload: str) -> tuple[dict[str, bytes], dict[str, object]]:
    """Files: what was heard, and the pictures; info: seconds by detector, the second opinion, and the refusal (then there are no files)."""
    errand = Errand(**json.loads(payload))
    path, data = Path(os.fsdecode(unquote_to_bytes(errand.path))), _load(canonical(errand.dataset), errand.data)
    images = errand.images.open(data.shape) if errand.images else None
    info: dict[str, object] = {"refused": None, "opinion": None, "seconds": {}}
    try:
        if is_pickle(path) and (opinion := second_opinion.ask(main_file(path))):
            info["opinion"] = opinion.model_dump(mode="json")
        file = errand.opening.read(path)
        if file.sha256 != errand.sha256:
            raise refuse("E-CHANGED", "it is not the file any more that it was when the scan began")
        work = partial(_ask, file.with_layers(data), data, images, errand)
        ((told, pictures),) = run_confined(work, file.shown, require=file.require_sandbox)
    except RefusedError as error:
        info["refused"] = [error.code, error.message, error.hint]
        return {}, info
    info["seconds"] = told["seconds"]
    return {HEARD: told["heard"].encode(), PICTURES: pictures}, info


def _ask(file: _model_file.NetFile, data: ImageSet, images: Unlabelled | None, errand: Errand, level: Level) -> Iterator[Message]:
    """One message: everything that is kept, and the seconds. Everything that is computed with the stranger's numbers is computed here."""
    model = file.as_net(data, errand.opening.normalization, ran=level)
    if images is not None:
        model, data = with_images(model, data, images)
    heard = hear(model, data, errand.detectors)
    # The seconds of this time, and where the file lay, are no part of the answer, which is the same every time.
    said = {name: one.but(seconds=0.0) for name, one in heard.said.items()}
    # Fields of the net as pairs, since canonical text sorts keys and people read widths in their own order.
    net = list(heard.model.net.items())
    text = canonical({"model": heard.model.but(file="", net={}), "net": net, "said": said, "pictures": list(heard.pictures)})
    seconds = {name: one.seconds for name, one in heard.said.items()}
    yield {"heard": text, "seconds": seconds}, pack({str(i): p for i, p in enumerate(heard.pictures.values())}, {})


def restored(files: dict[str, bytes], info: dict[str, Any], path: Path) -> tuple[Heard, Opinion | None]:
    """What a worker returned, as it was."""
    told, arrays = json.loads(files[HEARD]), unpack(files[PICTURES])[0]
    said = {name: Said(**{**one, "seconds": info["seconds"][name]}) for name, one in told["said"].items()}
    pictures = {name: arrays[str(i)] for i, name in enumerate(told["pictures"])}
    opinion = Opinion(**info["opinion"]) if info["opinion"] else None
    return Heard(Told(**told["model"]).but(file=path_text(path), net=dict(told["net"])), said, pictures), opinion


@lru_cache(maxsize=1)
def _load(config: str, where: str | None) -> ImageSet:
    dataset = registry.parse("datasets", json.loads(config))
    assert isinstance(dataset, Dataset)
    return dataset.load(Path(where) if where else None)
