"""int8 in onnxruntime: the net exported to ONNX, quantised there (quantise-dequantise pairs, fused by the runtime), run with one thread.

Imports torch, and onnx and onnxruntime of the extra `deploy`: import this late. Shapes: N images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from badnets.core import files
from badnets.core.errors import RefusedError
from badnets.nets._base import Network
from badnets.stressors._layers import fold_batch_norms

BATCH = 100


def quantise(network: Network, x_NCHW: Tensor) -> Network:
    """`network` with a body that runs in onnxruntime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        hint = "Run: pip install 'badnets[deploy]'."
        raise RefusedError("E-ENGINE", f"expected onnx, onnxscript and onnxruntime, got no {error.name}.", hint=hint) from error
    fold_batch_norms(network)
    seen = _Seen()
    body, network.body = network.body, seen
    with torch.no_grad():
        for part in x_NCHW.split(BATCH):
            network(part)
    with _quiet():
        data = _quantised(_exported(body, seen.parts[0]), seen.parts)
    network.body = OnnxBody(data)
    return network


class _Seen(nn.Module):
    """Keeps what a body would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Tensor] = []

    def forward(self, x_NCHW: Tensor) -> Tensor:
        self.parts.append(x_NCHW.contiguous())
        return x_NCHW


def _exported(body: nn.Module, x_NCHW: Tensor) -> Any:
    # One image would be taken for a constant batch size.
    example_NCHW = x_NCHW[:1].expand(2, -1, -1, -1).contiguous()
    free = ({0: torch.export.Dim("images", min=1)},)
    program = torch.onnx.export(
        body, (example_NCHW,), input_names=["x"], output_names=["logits"], dynamic_shapes=free, dynamo=True, verbose=False
    )
    assert program is not None, "the exporter gives a program back unless it is told to write one"
    return program.model_proto


def _quantised(model: Any, parts_NCHW: list[Tensor]) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(parts_NCHW)

        def get_next(self) -> dict[str, np.ndarray]:
            # Nothing is how it is told that there is no more.
            return {"x": part.numpy()} if (part := next(self.left, None)) is not None else {}

    with tempfile.TemporaryDirectory(prefix="badnets-") as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return files.read_bytes(target)


class OnnxBody(nn.Module):
    """Runs the model whose file is kept as a buffer; the session is made at first use."""

    model: Tensor

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.register_buffer("model", torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A session cannot be copied; a copy of the net makes its own.
        return {**self.__dict__, "_session": None}

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            data = self.model.numpy().tobytes()
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (logits_NK,) = self._session.run(None, {"x": x_NCHW.float().contiguous().numpy(force=True)})
        return torch.from_numpy(logits_NK)


@contextmanager
def _quiet() -> Generator[None]:
    """The exporter warns of its own internals, and advises a preparation that the folded batch norms are."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.disable(before)
