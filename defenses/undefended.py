"""Networks without any defense: the reference that an attack suite must take to about zero."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from audit.errors import MissingDependency
from defenses.base import NetworkDefense, architecture_for
from defenses.recipes import Recipe, cross_entropy, plain


def _bundled_resnet18() -> Path:
    """The naturally trained CIFAR-10 ResNet-18 that pyautoattack ships among its examples."""
    spec = find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "the undefended CIFAR-10 network is shipped with pyautoattack, which does not import; run `python -m audit doctor`"
        )
    return Path(spec.origin).parent / "examples" / "model_test.pt"


RECIPES = {
    "small": Recipe(
        "small", plain(cross_entropy), "middle_cnn", 0.5, 14, "ours: cross-entropy alone", images=20_000, decay="linear"
    )
}  # fmt: skip

UNDEFENDED = NetworkDefense(
    "undefended",
    "plain cross-entropy training, no defense",
    RECIPES,
    zoo={"fashion_mnist": "undefended-fashion_mnist-small.safetensors"},
    external={
        "cifar10": (
            _bundled_resnet18,
            {"architecture": architecture_for("resnet18", 1.0, "cifar10"), "dataset": "cifar10",
             "recipe": "pyautoattack 0.2.0, examples/model_test.pt (naturally trained)"},
        )
    },
)  # fmt: skip
