"""IBD-PSC: an input that keeps its confidence while the last batch norms of the net are turned up is suspicious.

Does not apply to nets without batch norm, where it says so, and little to nets with few of them: the answer rests on how the excess of
early layers upsets later ones. Needs labelled clean images, about a hundred.

L. Hou, R. Feng, Z. Hua, W. Luo, L. Y. Zhang, Y. Li (2024), IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling
Consistency, https://arxiv.org/abs/2405.09786

Departures: where turning up k + n - 1 norms would be more than there are, all of them are the last step, taken once; where no number of
norms upsets clean images enough, the last n numbers are taken, and the note says so. "Last" is by order of definition, as in the paper.
Shapes: N inputs, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call

from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access
from badnets.core.view import View
from badnets.detectors._base import Detector

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network

AT_ONCE = 500


class IbdPsc(Detector):
    """The mean confidence in the input's label over `num_nets` nets whose last k, k + 1, ... batch norms have weights and biases `factor`
    times as large; k is the first number with which more than the share `error` of at most `num_clean` clean images is misclassified."""

    kind: Literal["ibd_psc"] = "ibd_psc"
    judges = Level.INPUTS
    access = Access.CLEAN
    factor: float = Field(1.5, gt=1, le=100)
    num_nets: int = Field(5, ge=1, le=100)
    error: float = Field(0.6, ge=0, lt=1)
    threshold: float = Field(0.9, ge=0, lt=1)
    num_clean: int = Field(100, ge=1)

    def _scan(self, view: View, seed: int) -> Answer:
        del seed
        network, x_NCHW = view.network, view.need_inputs()
        names = _norms(network)
        if not names:
            return Answer(why_not="needs a net with batch norm")
        start, note = self._start(view, names)
        label_N = network.predict_logits(x_NCHW).argmax(dim=1)
        total_N = torch.zeros(len(x_NCHW), dtype=torch.float64, device=label_N.device)
        numbers = range(start, min(start + self.num_nets, len(names) + 1))
        for number in numbers:
            p_NK = turned_up(network, names[-number:], self.factor, x_NCHW).double().softmax(dim=1)
            total_N += p_NK.gather(1, label_N[:, None])[:, 0]
        score_N = (total_N / len(numbers)).cpu().numpy()
        return Answer(score_N=score_N, flag_N=score_N > self.threshold, note=f"{note}; {len(numbers)} nets")

    def _start(self, view: View, names: list[str]) -> tuple[int, str]:
        """How many norms the first net turns up, and in words."""
        clean_NCHW, y_N = (part[: self.num_clean] for part in view.need_clean())
        for number in range(1, len(names) + 1):
            logits_NK = turned_up(view.network, names[-number:], self.factor, clean_NCHW)
            wrong = float((logits_NK.argmax(dim=1).cpu() != y_N).double().mean())
            if wrong > self.error:
                return number, f"from {number} of {len(names)} norms on, with which {wrong:.0%} of clean images are misclassified"
        return max(1, len(names) - self.num_nets + 1), f"no number of the {len(names)} norms upsets clean images enough"


def _norms(network: nn.Module) -> list[str]:
    """Names of the batch norms that have a weight and a bias, input side first."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and module.affine
    ]


def turned_up(network: Network, names: list[str], factor: float, x_NCHW: Tensor) -> Tensor:
    """logits_NK of the net in which weight and bias of the named norms are multiplied; the net itself stays as it is."""
    norms = {f"{name}.{part}": factor * getattr(network.get_submodule(name), part) for name in names for part in ("weight", "bias")}
    with torch.inference_mode():
        parts = [functional_call(network, norms, (part.to(network.device),)).float() for part in x_NCHW.split(AT_ONCE) if len(part)]
    return torch.cat(parts) if parts else torch.zeros(0, network.num_classes, device=network.device)
