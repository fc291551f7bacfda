"""An architecture that timm has by name, as a list of layers: timm builds it with random weights, and one image is followed through it.

What then holds a stranger's tensors is a net of ours, which needs timm no more. It is compared with timm's own first. Not for attention,
layer norms, splits, or anything else that no layer of ours does: that is refused by name.
https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, final

from badnets.core.errors import RefusedError, UsageError
from badnets.core.registry import nearest
from badnets.intake.arch_file import Architecture
from badnets.intake.reasons import quoted

if TYPE_CHECKING:
    from torch import fx, nn

    from badnets.core.layers import Shape

KIND = "timm"
_INSTALL = "Run: pip install 'badnets[zoo]'. Or describe its layers with --arch FILE.toml."
_SAME = 1e-3
_ACTIVATIONS = ("relu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "selu", "mish", "softplus", "relu6")
_PASSED = ("dropout", "alias", "clone", "contiguous", "detach", "feature_dropout")
# What building and following a net may end with where it is not made for such images.
_WRONG = (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError, NotImplementedError)


def named(name: str) -> dict[str, Any]:
    """What `--net timm:NAME` comes down to, with the version of timm. Raises UsageError (E-ENGINE) where it is not installed."""
    try:
        return {"kind": KIND, "name": name, "version": importlib.metadata.version(KIND)}
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError("E-ENGINE", f"--net timm:{name:.60} needs timm, which is not installed.", hint=_INSTALL) from error


def timm_layers(name: str, image: Shape, num_classes: int) -> Architecture:
    """The layers of a net by its name there, for such images and classes.

    Raises UsageError (E-ENGINE: timm cannot be imported; E-NAME), RefusedError (E-ARCH: it has other layers than ours).
    """
    import torch

    timm = _timm()
    if not name.isprintable() or set(name) & set(":/\\") or not timm.is_model(name):
        raise UsageError("E-NAME", f"timm has no net called {name!r:.60}.", hint=nearest(name, timm.list_models()))
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            model = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=image[0]).eval()
            program = torch.export.export(model, (torch.zeros(1, *image),), strict=False)
        except _WRONG as error:
            what = f"timm's {name} cannot be built for {'x'.join(map(str, image))} images: {quoted(str(error), 120)[1:-1]}"
            raise RefusedError("E-ARCH", f"{what}.", hint="Name the data set in the size that it was made for.") from error
        layers = _Walk(name, program).done()
        _check(name, model, layers, image, num_classes)
    return Architecture(f"timm's {name}", layers)


def _timm() -> Any:
    try:
        with _quiet():
            import timm
    except ModuleNotFoundError as error:
        if error.name == KIND:
            raise UsageError("E-ENGINE", "--net timm:NAME needs timm, which is not installed.", hint=_INSTALL) from error
        raise _broken(error) from error
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise _broken(error) from error
    return timm


def _broken(error: Exception) -> UsageError:
    hint = "If it speaks of torchvision: install the one that belongs to your torch, or none, since badnets does not need it."
    return UsageError("E-ENGINE", f"timm is installed, but cannot be imported: {quoted(str(error), 120)[1:-1]}.", hint=hint)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check(name: str, model: nn.Module, layers: list[dict[str, Any]], image: Shape, num_classes: int) -> None:
    """Refuses layers that do not answer as timm's net does, with the norms' statistics drawn at random."""
    import torch

    from badnets.nets.layered import Layered

    for key, buffer in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + (0.5 if key.endswith("var") else -0.5))
    channels, height, width = image
    try:
        ours = Layered(layers=tuple(layers)).build(
            (channels, height, width), num_classes, seed=0, mean=[0.0] * channels, std=[1.0] * channels
        )
        ours.body.load_state_dict(model.state_dict(), strict=True)
    except RuntimeError as error:
        raise _other(name, "tensors that no layer of ours holds") from error
    x_NCHW = torch.rand(2, *image)
    with torch.no_grad():
        theirs_NK = model(x_NCHW)
        apart = float((ours.eval()(x_NCHW) - theirs_NK).abs().max() / theirs_NK.abs().max().clamp(min=1e-6))
    if not apart < _SAME:
        raise _other(name, f"layers that, put together by us, answer otherwise (by {apart:.1g})")


def _other(name: str, what: str) -> RefusedError:
    return RefusedError("E-ARCH", f"timm's {name} has {what}: it is not read.", hint="Describe its layers with --arch FILE.toml.")


@final
class _Walk:
    """Goes through the operators in order; what each gives is the name of a layer of ours."""

    def __init__(self, name: str, program: Any) -> None:
        self.name, self.layers = name, []
        self.values: dict[str, str] = {}
        signature = program.graph_signature
        self.held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.nodes = list(program.graph.nodes)
        for node in signature.user_inputs:
            self.values[node] = "input"

    def done(self) -> list[dict[str, Any]]:
        """All layers. Raises RefusedError (E-ARCH)."""
        for node in self.nodes:
            if node.op == "call_function":
                self._take(node)
        return self.layers

    def _take(self, node: fx.Node) -> None:
        op, told = _told(node)
        plain = op.removesuffix("_")
        translate = {"conv2d": _conv, "batch_norm": _norm, "linear": _linear, "max_pool2d": _pool, "avg_pool2d": _pool, "pad": _pad}
        if plain in _PASSED:
            self.values[node.name] = self._read(told["input"] if "input" in told else told["self"])
            return
        if plain in translate:
            layer = translate[plain](self, told)
        elif plain in ("add", "mul", "cat"):
            layer = self._joined(plain, told)
        else:
            layer = self._without_weights(plain, told)
        if layer is None:
            raise _other(self.name, f"the operator {plain}")
        parts = layer if isinstance(layer, list) else [layer]
        for part in parts:
            self.layers.append({"name": f"_{len(self.layers)}", **part})
        self.values[node.name] = self.layers[-1]["name"]
        if op.endswith("_"):  # who reads what was there before gets what is there now
            self.values[getattr(node.args[0], "name", "")] = self.values[node.name]

    def _read(self, node: Any) -> str:
        found = self.values.get(getattr(node, "name", ""))
        if found is None:
            raise _other(self.name, "an operator that reads no layer")
        return found

    def of(self, told: dict[str, Any]) -> dict[str, Any]:
        return {"of": (self._read(told.get("self", told.get("input"))),)}

    def owner(self, node: Any) -> str:
        """The name of the layer whose tensor it is."""
        return self.held.get(getattr(node, "name", ""), "").rpartition(".")[0]

    def _joined(self, op: str, told: dict[str, Any]) -> dict[str, Any] | None:
        read = told["tensors"] if op == "cat" else [told["self"], told["other"]]
        if (
            (op == "cat" and told["dim"] != 1)
            or told.get("alpha", 1) != 1
            or not all(getattr(one, "name", "") in self.values for one in read)
        ):
            return None
        name = "identity" if len(read) == 1 else "concat" if op == "cat" else op
        return {"op": name, "of": tuple(self._read(one) for one in read)}

    def _without_weights(self, op: str, told: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]] | None:
        if op in _ACTIVATIONS:
            return {"op": op, **self.of(told)}
        if op == "gelu":
            return {"op": "gelu_tanh" if told["approximate"] == "tanh" else "gelu", **self.of(told)}
        if op == "leaky_relu":
            return {"op": op, "slope": told["negative_slope"], **self.of(told)}
        if op == "elu" and (told["alpha"], told["scale"], told["input_scale"]) == (1, 1, 1):
            return {"op": op, **self.of(told)}
        if op == "hardtanh" and (told["min_val"], told["max_val"]) == (0, 6):
            return {"op": "relu6", **self.of(told)}
        if op in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
            return {"op": op.removesuffix("2d"), "size": tuple(told["output_size"]), **self.of(told)}
        if op == "mean" and sorted(axis % 4 for axis in told["dim"] or ()) == [2, 3]:
            pool = {"op": "adaptive_avg_pool", **self.of(told)}
            return pool if told["keepdim"] else [pool, {"op": "flatten"}]
        if op == "flatten" and (told["start_dim"], told["end_dim"]) == (1, -1):
            return {"op": "flatten", **self.of(told)}
        return None


def _told(node: fx.Node) -> tuple[str, dict[str, Any]]:
    """The operator's name, with _ behind it where it writes over what it reads; its arguments by name."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(node.target), {}
    found = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}
    found |= dict(zip((one.name for one in schema.arguments), node.args, strict=False))
    return schema.name.partition("::")[2], {**found, **node.kwargs}


def _conv(walk: _Walk, told: dict[str, Any]) -> dict[str, Any] | None:
    shape = told["weight"].meta["val"].shape
    if isinstance(told["padding"], str):
        return None
    windows = {field: tuple(told[field]) for field in ("stride", "padding", "dilation")}
    more = {"groups": told["groups"], "bias": told["bias"] is not None}
    return {
        "op": "conv",
        "name": walk.owner(told["weight"]),
        "out": shape[0],
        "kernel": tuple(shape[2:]),
        **windows,
        **more,
        **walk.of(told),
    }


def _norm(walk: _Walk, told: dict[str, Any]) -> dict[str, Any]:
    affine = told["weight"] is not None
    return {"op": "batch_norm", "name": walk.owner(told["running_mean"]), "eps": told["eps"], "affine": affine, **walk.of(told)}


def _linear(walk: _Walk, told: dict[str, Any]) -> dict[str, Any]:
    size = told["weight"].meta["val"].shape[0]
    return {"op": "linear", "name": walk.owner(told["weight"]), "out": size, "bias": told["bias"] is not None, **walk.of(told)}


def _pool(walk: _Walk, told: dict[str, Any]) -> dict[str, Any] | None:
    if told.get("divisor_override") is not None or any(step != 1 for step in _pair(told.get("dilation", 1))):
        return None
    kernel = _pair(told["kernel_size"])
    layer = {"op": "avg_pool" if "count_include_pad" in told else "max_pool", "kernel": kernel, "stride": _pair(told["stride"]) or kernel}
    layer |= {"padding": _pair(told["padding"]), "ceil": told["ceil_mode"]}
    return layer | ({"count_padding": told["count_include_pad"]} if "count_include_pad" in told else {}) | walk.of(told)


def _pair(value: Any) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * 2 if len(numbers) == 1 else numbers


def _pad(walk: _Walk, told: dict[str, Any]) -> dict[str, Any] | None:
    if told["mode"] != "constant" or len(told["pad"]) != 4:
        return None
    left, right, top, bottom = told["pad"]
    return {"op": "pad", "padding": (top, left, bottom, right), "value": float(told["value"] or 0.0), **walk.of(told)}
