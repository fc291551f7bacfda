"""Every reason for which a model file is refused: its code and the next step.

One table, so that a code means one thing, the docs can list them all and a test can see that each of them can happen.
"""

from __future__ import annotations

from badnets.core.errors import RefusedError

_RESAVE = "Have its author save it anew: torch.save(net.state_dict(), 'model.pt') or safetensors."
_WHOLE = "Fetch it again and compare its SHA-256 with its author's."
_STATE = "Only weights are read. Its author can save them with torch.save(net.state_dict(), 'model.pt')."
_PLACE = "Give the path of a .safetensors or .pt file itself."
_WARN = "An honest file does not look like this: do not load it with anything else either."
_CONVERT = "Convert its weights to safetensors where they were made."

STEPS = {
    # What the path leads to.
    "E-LINK": "Give the path of the file that it leads to.",
    "E-DIRECTORY": _PLACE,
    "E-NOT-FILE": _PLACE,
    "E-EMPTY": _WHOLE,
    "E-SIZE": "Name a smaller file; nothing of it was read.",
    "E-SPARSE": _WHOLE,
    "E-CHANGED": "Wait until it is written, or copy it, then scan the copy.",
    "E-UNREADABLE": "Check the permissions and the disk.",
    # What kind of file it is.
    "E-FORMAT": "badnets opens safetensors, torch files (checkpoints, TorchScript, .pt2), ONNX, Keras models and HDF5.",
    "E-PICKLE-RAW": _STATE,
    "E-LEGACY": _RESAVE,
    "E-TORCHSCRIPT": "Have its author save plain weights, not quantised or packed: torch.save(net.state_dict(), 'model.pt').",
    "E-FROZEN": "Have its author save it before torch.jit.freeze, or its weights with torch.save(net.state_dict(), 'model.pt').",
    "E-PT2": _STATE,
    "E-EXTRA": "Install it, pip install 'badnets[hdf5]', and run the same command again.",
    "E-HDF5": "Fetch it again, or convert its weights to safetensors where they were made.",
    "E-KERAS": "Weights and usual layers are read, no code. Its author can save the weights alone: model.save_weights('net.weights.h5').",
    "E-ONNX": "Export it anew with images of a fixed size and standard operators, or convert its weights to safetensors where it was made.",
    "E-EXTERNAL": "Put the file that holds its numbers into the model's folder, under the name that it had.",
    "E-MODEL-FOLDER": "Fetch the whole folder again, or give its file of weights itself, with --normalize and --arch as needed.",
    "E-SHARDS": "Fetch the whole folder again: its index and its shards belong together.",
    "E-TFLITE": _CONVERT,
    "E-GGUF": _CONVERT,
    "E-NUMPY": _CONVERT,
    "E-ARCHIVE": "Unpack it where that is safe and give the weight file itself.",
    # safetensors
    "E-HEADER": _WHOLE,
    "E-JSON": _RESAVE,
    "E-DUPLICATE": _WARN,
    "E-NAME": _RESAVE,
    "E-DTYPE": "Have its author save it in float32, float16, bfloat16, float64, an integer type or bool.",
    "E-SHAPE": _RESAVE,
    "E-OFFSETS": _WHOLE,
    "E-COUNT": "Files of at most 10,000 tensors are read; have its author save the weights alone.",
    # torch zip: the container
    "E-ZIP": _WHOLE,
    "E-ZIP-NAME": _WARN,
    "E-ZIP-HIDDEN": _WARN,
    "E-ZIP-HEADERS": _WARN,
    "E-ZIP-PACKED": _RESAVE,
    "E-ZIP-CRC": _WHOLE,
    "E-ZIP-MEMBER": _WARN,
    "E-BYTEORDER": "Have its author save it on a little-endian machine.",
    # torch zip: the pickle in it
    "E-PICKLE": _RESAVE,
    "E-PROTOCOL": _RESAVE,
    "E-OPCODE": _STATE,
    "E-GLOBAL": _STATE,
    "E-CALL": _WARN,
    # torch zip: the tensors
    "E-STORAGE": _WHOLE,
    "E-STRIDE": _RESAVE,
    "E-BOUNDS": _WARN,
    "E-OVERLAP": _RESAVE,
    # The content
    "E-NO-WEIGHTS": _STATE,
    "E-AMBIGUOUS": "Have its author save one net a file.",
    # The sandbox
    "E-MEMORY": "A file of weights needs about twice its size; free some memory, or take it for hostile.",
    "E-TIME": "Free the machine and try again, or take it for hostile.",
    "E-CRASHED": "Take the file for hostile, and report it as a defect of badnets.",
    "E-SANDBOX": "Run badnets on Linux 6.7 or later with Landlock; all but HDF5 is also read without --require-sandbox.",
}


def refuse(code: str, what: str) -> RefusedError:
    """The error to raise: `what` is a clause without a full stop; text from a file belongs in `quoted`."""
    return RefusedError(code, f"{what}. Nothing was loaded.", hint=STEPS[code])


def quoted(value: object, most: int = 60) -> str:
    """A value from a file in one line of ASCII, cut: text in quotes, numbers, flat lists of them; of anything else only its type."""
    if isinstance(value, str | bytes):
        shown = ascii(value[: 4 * most])
    elif value is None or isinstance(value, bool | int | float):
        shown = ascii(value)
    elif isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value):
        shown = ascii(value[:most])
    else:  # a repr of what nests a thousand deep would not come back
        return f"a {type(value).__name__}"
    return shown if len(shown) <= most + 2 else shown[:most] + "..."


def amount(size: int) -> str:
    """A number of bytes for people."""
    for unit, name in ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}" if size < unit << 20 else f"{size // unit} {name}"
    return f"{size} bytes"
