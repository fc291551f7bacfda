"""Says of tensors that are no net of ours which kind of layer they belong to that is not built, so that nobody tries to describe it.

By names alone, as the usual libraries give them. It never refuses by itself: it is asked where nothing fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from badnets.intake.reasons import quoted

_MARKS = (
    ("quantised weights", r"(^|\.)(qweight|qzeros|_packed_params\S*|weight_scale|weight_zero_point|scales?|zero_point)$"),
    ("adapters of another net, whose own weights are elsewhere", r"(^|\.)(lora_[AB]|lora_(down|up)|hada_w\d_[ab])(\.|$)"),
    ("words for input, not images", r"(^|\.)(word_embeddings|embed_tokens|token_embedding|wte|tok_embeddings)\.weight$"),
    ("parts that find objects in images", r"(^|\.)(rpn|fpn|roi_heads|anchors|anchor_grid|bbox_embed|box_predictor)(\.|$)"),
    ("recurrent layers", r"(^|\.)(weight|bias)_(ih|hh)_l\d+$"),
    ("a distillation token (DeiT)", r"(^|\.)(dist_token|distillation_token|head_dist|distillation_classifier)(\.|$)"),
    ("register tokens", r"(^|\.)(reg_token|register_tokens?)$"),
    (
        "relative positions, as Swin and BEiT have them",
        r"(^|\.)(relative_position_bias(_table)?|relative_position_index|rel_pos_[hw])(\.|$)",
    ),
    (
        "scaled layers (LayerScale), as ConvNeXt, CaiT and DINOv2 have them",
        r"(^|\.)(ls\d?\.gamma|layer_scale\d?(\.lambda1)?|layer_scale_parameter|lambda_[12]|gamma_[12]|blocks\.\d+\.gamma)$",
    ),
    ("gated blocks (SwiGLU)", r"(^|\.)mlp\.(w12|w3|weights_in|weights_out|fc1_g)\.weight$"),
)


def not_built(names: Iterable[str]) -> str:
    """The first such kind with a tensor of it, as in "a distillation token (DeiT), as 'dist_token'"; "" where none is known."""
    names = list(names)
    for kind, pattern in _MARKS:
        for name in names:
            if re.search(pattern, name[:256]):
                return f"{kind}: {quoted(name)}"
    return ""
