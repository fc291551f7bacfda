"""Training a net further with `train.fit`: which layers learn, and which weights must stay zero. Shared by stressors that train."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from badnets.core.errors import UsageError
from badnets.core.rng import stream_seed
from badnets.stressors._base import Supply
from badnets.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from badnets.nets._base import Network

Layers = Literal["head", "all"]


def tune(
    network: Network, supply: Supply, recipe: Recipe, *, who: str, seed: int, layers: Layers = "all", keep_zeros: bool = True
) -> Network:
    """`network` itself, trained in place on the supply's labelled images.

    The batch order is of a stream of its own (`who`), so an owner does not repeat the order of the first training.
    """
    from badnets.train.fit import fit

    x_NCHW, y_N = supply.labelled(who)
    with only_learning(network, layers, who), zeros_kept(network, active=keep_zeros):
        fit(network, x_NCHW, y_N, recipe, seed=stream_seed(seed, who))
    return network


@contextmanager
def only_learning(network: Network, layers: Layers, who: str) -> Generator[None]:
    """Within the context only the chosen layers want gradients; afterwards all parameters do what they did before."""
    before = [(p, p.requires_grad) for p in network.parameters()]
    if layers == "head":
        network.requires_grad_(requires_grad=False)
        head(network, who).requires_grad_()
    if not any(p.requires_grad for p in network.parameters()):
        raise UsageError(
            "E-FROZEN", f"{who} expected a net with weights that can be trained, got one without.", hint="Tune it before that."
        )
    try:
        yield
    finally:
        for p, wanted in before:
            p.requires_grad_(wanted)
            p.grad = None


def head(network: nn.Module, who: str) -> nn.Linear:
    """The last linear layer."""
    from torch import nn

    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UsageError("E-FROZEN", f"{who} expected a net with a linear head, got one without.", hint='Say layers="all".')
    return linear[-1]


@contextmanager
def zeros_kept(network: nn.Module, *, active: bool) -> Generator[None]:
    """Within the context, parameters that are exactly zero get no gradient; weight decay leaves zero at zero.

    Biases count too, or a pruned unit would come back as a constant. A trained net has no such zeros unless somebody put them there.
    """

    def masked(mask: Tensor) -> Any:
        return lambda grad: grad * mask

    with ExitStack() as stack:
        for p in network.parameters():
            if active and p.requires_grad and bool((p == 0).any()):
                stack.callback(p.register_hook(masked(p.detach() != 0)).remove)
        yield
