"""Cutting a net into trunk and head, and training a new head on what the frozen trunk says.

For nets whose body is a `Sequential` that ends in linear layers, as all of the catalogue are.
Shapes: M trunks, N images, F features, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any, Literal

from badnets.core.errors import UsageError
from badnets.core.rng import generator, stream_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from badnets.nets._base import Network

Cut = Literal["last", "dense"]


def cut_of(network: Network, layers: Cut) -> int:
    """Index in the body of the first child that belongs to the head.

    "last": the last child with a linear layer. "dense": every linear layer after the last convolution, where they follow each other
    in the body; where nothing with weights would be left for the trunk, the last one only.
    """
    from torch import nn

    body = network.body
    linear = [i for i, child in enumerate(_children(body)) if any(isinstance(m, nn.Linear) for m in child.modules())]
    if not linear:
        raise UsageError("E-HEAD", "transfer expected a net whose body is a sequence that ends in linear layers, got another one.")
    if layers == "last":
        return linear[-1]
    kinds = _children(body)
    found = linear[-1]
    for i in range(linear[-1], -1, -1):
        if isinstance(kinds[i], nn.Linear):
            found = i
        elif next(kinds[i].parameters(), None) is not None:
            return found
    return linear[-1]


def _children(body: nn.Module) -> list[nn.Module]:
    from torch import nn

    return list(body.children()) if isinstance(body, nn.Sequential) else []


def trunk_of(network: Network, cut: int) -> Network:
    """A copy of the net without its head: `predict_logits` then gives features_NF. Layers keep their names."""
    from torch import nn

    trunk = copy.deepcopy(network)
    trunk.body = nn.Sequential(*_children(trunk.body)[:cut])
    return trunk.eval()


def sizes_of(network: Network, cut: int) -> list[int]:
    """Widths of the hidden layers in the head that is cut off."""
    return [layer.out_features for child in _children(network.body)[cut:] for layer in _linear(child)][:-1]


def train_heads(features_MNF: Tensor, y_N: Tensor, hidden: list[int], num_classes: int, how: Any, *, seed: int) -> list[nn.Sequential]:
    """A new head for each of M trunks, with torch's own initial weights (the same for all), trained with Adam on what the trunks say of the
    same images; `how` has `epochs`, `lr` and `batch_size`. All learn in one batched pass: Adam treats every weight by itself."""
    import torch
    from torch import nn

    if features_MNF.ndim != 3:
        raise UsageError(
            "E-HEAD", f"transfer expected a trunk that gives one row of features an image, got {tuple(features_MNF.shape)[1:]}."
        )
    num, device = len(features_MNF), features_MNF.device
    heads = [_fresh(features_MNF.shape[2], hidden, num_classes, seed).to(device) for _ in range(num)]
    layers = _linear(heads[0])
    weights_MOI = [layer.weight.detach().expand(num, -1, -1).clone().requires_grad_() for layer in layers]
    biases_M1O = [layer.bias.detach().expand(num, 1, -1).clone().requires_grad_() for layer in layers]
    # Adam, since an amplified feature would need a learning rate of its own under plain descent.
    optimizer = torch.optim.Adam([*weights_MOI, *biases_M1O], lr=how.lr, fused=True)
    y_N = y_N.to(device)
    for epoch in range(how.epochs):
        order_N = torch.randperm(len(y_N), generator=generator(seed, "head order", epoch)).to(device)
        for batch in order_N.split(how.batch_size):
            x_MNO = features_MNF[:, batch]
            for depth, (weight_MOI, bias_M1O) in enumerate(zip(weights_MOI, biases_M1O, strict=True)):
                x_MNO = torch.baddbmm(bias_M1O, x_MNO.relu() if depth else x_MNO, weight_MOI.mT)
            loss = nn.functional.cross_entropy(x_MNO.flatten(0, 1), y_N[batch].repeat(num), reduction="sum") / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for m, head in enumerate(heads):
            for layer, weight_MOI, bias_M1O in zip(_linear(head), weights_MOI, biases_M1O, strict=True):
                layer.weight.copy_(weight_MOI[m])
                layer.bias.copy_(bias_M1O[m, 0])
    return [head.eval() for head in heads]


def _fresh(inputs: int, hidden: list[int], num_classes: int, seed: int) -> nn.Sequential:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(stream_seed(seed, "head"))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([inputs, *hidden, num_classes]):
            layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear(head: nn.Module) -> list[nn.Linear]:
    from torch import nn

    return [module for module in head.modules() if isinstance(module, nn.Linear)]
