"""Grad-CAM: where a network looks for the class that it names.

Source: Selvaraju et al. 2017, Eq. 1 and 2. Written out here because the library grad-cam (1.5.7) brings OpenCV along, 150 MB for
these lines, and takes the maps of a module, where many networks apply their activation as a function.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import Unsupported
from audit.portraits.layers import Call, calls
from audit.portraits.maps import Followed, leaf


def attention(network: nn.Module, path: str, x: Tensor, classes: Tensor) -> Tensor:
    """Heat in [0,1] of images x (n, c, h, w) for `classes` (n,) behind the convolution `path`: float32 (n, h, w).

    The maps are those of the first activation behind it: before one, a map that speaks against the class by being
    negative would weigh as one that speaks for it.

    The gradient of the class's logit, averaged over positions, weighs each channel (Eq. 1); the sum over channels is cut
    at zero (Eq. 2), scaled to a largest value of 1 for each image and stretched to its size. All zero where nothing
    speaks for the class. Raises Unsupported where no gradient leads from the logits to the layer.
    """
    followed = Followed()

    def keep(call: Call) -> Tensor | None:
        if call[0] != path:
            return None
        maps = leaf(call[2])
        followed.begin(maps)
        return maps

    with torch.enable_grad(), calls(network, keep):
        with followed:
            logits = network(x.detach().requires_grad_())
        score, maps = logits.gather(1, classes[:, None]).sum(), followed.maps
        found = None
        if maps is not None and score.requires_grad:
            found = torch.autograd.grad(score, maps, allow_unused=True)[0]
    if found is None or maps is None or len(maps) != len(x):
        raise Unsupported(f"no gradient leads from the logits to layer {path!r}, expected a differentiable network")
    return _heat(maps.detach(), found, x.shape[-2:])


def _heat(maps: Tensor, gradient: Tensor, size: torch.Size) -> Tensor:
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * maps).sum(1, keepdim=True).clamp_min(0)
    heat = heat / heat.amax((2, 3), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
    stretched: Tensor = F.interpolate(heat.float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    return stretched
