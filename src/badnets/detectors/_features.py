"""What the last layer of a net reads and says of images, batch by batch: shared by detectors that look at representations.

Shapes: N images, C channels, H rows, W columns, K classes, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from badnets.nets._base import Network


def features(network: Network, x_NCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(features_NF, logits_NK) as float64, in evaluation mode. Raises UsageError for a net without a linear head."""
    from badnets.train.distil import answers

    features_NF, logits_NK = answers(network, x_NCHW)
    return features_NF.flatten(1).double().cpu().numpy(), logits_NK.double().cpu().numpy()
