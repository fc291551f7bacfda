"""Tells apart what torch writes as a zip file, by its members: a checkpoint, a TorchScript archive, an exported program.

Not for torch.package, nor for files of TorchScript from before torch 1.4.
"""

from __future__ import annotations

from badnets.intake.reasons import refuse
from badnets.intake.torch_export import is_exported, read_exported
from badnets.intake.torch_script import is_code, is_script, read_torch_script
from badnets.intake.torch_zip import inner_members, read_torch_zip
from badnets.intake.weights import Weights
from badnets.intake.zip_structure import read_members

_BEFORE = ("attributes.pkl", "model.json")


def read_torch_archive(data: bytes) -> Weights:
    """The tensors in it, as views of its bytes. Raises RefusedError."""
    members = read_members(data, is_code)
    if is_exported(members):
        return read_exported(data, members)
    inner = inner_members(members)
    if inner.keys() & set(_BEFORE):
        raise refuse("E-TORCHSCRIPT", "it is a TorchScript archive of a torch before 1.4")
    return read_torch_script(data, inner) if is_script(inner) else read_torch_zip(data, inner)
