"""What the units that react most see: the images that fire them, where, the weights on the pixels, and a picture a layer of the change.

For looking at, not for deciding. The seen patch is where the unit's activation has a gradient, so it is the whole image behind a linear
layer.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (pictures of first-layer filters and of activations);
Zeiler and Fergus (2013), "Visualizing and Understanding Convolutional Networks", https://arxiv.org/abs/1311.2901.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from badnets.measure.question import Answer, World
from badnets.neurons._base import Analysis, View
from badnets.neurons._edits import as_array
from badnets.neurons._rank import Profile, profile

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

GREY = 128


class Sight(Analysis):
    """Per layer l: `l.units` (the `count` most selective) and their `l.selectivity`; for s "clean" and "triggered", units x `images`:
    `l.s.rows` (which images fired it most), `l.s.pixels` (these), `l.s.box` (top, bottom, left, right of what was seen), `l.s.value`;
    `l.change` (picture: where, or in which units, activations change under the trigger), and `weights` (picture per unit of the first
    layer, if that sees pixels; grey is 0).
    """

    kind: Literal["sight"] = "sight"
    count: int = Field(2, ge=1)
    images: int = Field(3, ge=1)

    def _arrays(self, network: Network, look: View, judge: View, world: World) -> Answer:
        del look, world
        layers = self.layers(network)
        known = profile(network, judge, layers)
        answer: Answer = {"layers": as_array(list(layers.items()))}
        for i, layer in enumerate(layers):
            units = [u for _, u in known.order("selectivity", [layer])[: self.count]]
            answer[f"{i}.units"] = np.array(units, dtype=np.int64)
            answer[f"{i}.selectivity"] = known.scores["selectivity"][layer][units]
            for name, x_NCHW in (("clean", judge.clean_NCHW), ("triggered", judge.triggered_NCHW)):
                answer |= {f"{i}.{name}.{what}": value for what, value in self._fired(network, x_NCHW, layer, units).items()}
            answer[f"{i}.change"] = _change(network, judge, layer, units, known)
        weights = _pixel_weights(network, next(iter(layers))) if layers else None
        return answer if weights is None else {**answer, "weights": weights}

    def _fired(self, network: Network, x_NCHW: Tensor, layer: str, units: list[int]) -> Answer:
        import torch

        from badnets.nets._taps import record

        strength_NU = torch.cat(
            [_peaks(record(network, [layer], part.to(network.device))[layer])[:, units].cpu() for part in x_NCHW.split(125)]
        )
        rows_UM = strength_NU.argsort(dim=0, descending=True, stable=True)[: self.images].T
        boxes = [[_box(network, x_NCHW[int(row)], layer, unit) for row in rows] for unit, rows in zip(units, rows_UM, strict=True)]
        return {
            "rows": rows_UM.contiguous().numpy(),
            "value": strength_NU.gather(0, rows_UM.T).T.contiguous().numpy(),
            "pixels": x_NCHW[rows_UM].numpy(),
            "box": np.array(boxes, dtype=np.int64),
        }


def _peaks(a: Tensor) -> Tensor:
    """The largest activation over positions."""
    return a.flatten(2).amax(2) if a.ndim > 2 else a


def _box(network: Network, x_CHW: Tensor, layer: str, unit: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (ends excluded) of the pixels on which the unit's peak depends; the whole image if it depends on none."""
    import torch

    from badnets.nets._taps import peak_gradient

    touched_HW = peak_gradient(network, layer, unit, x_CHW[None].to(network.device))[0].abs().amax(0) > 0
    if not touched_HW.any():
        return 0, x_CHW.shape[1], 0, x_CHW.shape[2]
    down, across = (torch.nonzero(touched_HW.any(dim=d))[:, 0] for d in (1, 0))
    return int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1


def _change(network: Network, view: View, layer: str, units: list[int], known: Profile) -> np.ndarray:
    """uint8 (1, H, W): mean change of these units at each place of the layer's map; without a map, the selectivity of each unit."""
    from badnets.nets._taps import record

    few = view.thinned(100)
    clean, shown = (record(network, [layer], x.to(network.device))[layer] for x in (few.clean_NCHW, few.triggered_NCHW))
    if clean.ndim == 4:
        return _grey((shown - clean)[:, units].abs().mean(dim=(0, 1)).cpu().numpy())[None]
    score_C = known.scores["selectivity"][layer]
    side = int(np.ceil(np.sqrt(len(score_C))))
    return _grey(np.pad(score_C, (0, side * side - len(score_C))).reshape(side, side))[None]


def _grey(values: np.ndarray) -> np.ndarray:
    top = float(values.max())
    return np.round(255 * np.clip(values / top, 0, 1)).astype(np.uint8) if top > 0 else np.zeros(values.shape, dtype=np.uint8)


def _pixel_weights(network: Network, layer: str) -> np.ndarray | None:
    """uint8 (U, C, h, w) of the layer's weights if they act on pixels, each unit scaled to its own largest weight."""
    from badnets.nets._taps import incoming

    weight = incoming(network, layer)
    if weight.ndim == 2 and weight[0].numel() == np.prod(network.shape):
        weight = weight.reshape(-1, *network.shape)
    if weight.ndim != 4 or weight.shape[1] != network.shape[0]:
        return None
    scaled = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    return (GREY + 127 * scaled).round().clamp(0, 255).byte().cpu().numpy()
