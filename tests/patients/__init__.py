"""Patients: models with one planted flaw each, and healthy ones, for diagnoses and rules to be tried on.

`PATIENTS` has them by name. Images are the embedded Fashion-MNIST ones, the threat is Linf. The figures in the table
are measured (`python -m tests.patients.measure` prints them again) and hold to a point or two on other machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from audit.attacks.common import WrappedAttack
from audit.datasets import FASHION_MNIST
from tests.patients import attackers, moving, parts
from tests.patients.networks import TASKS, Normalise, from_zoo, trained

UNDEFENDED = "undefended-fashion_mnist-small"
REJECT = 10


@dataclass(frozen=True)
class Patient:
    """One model and what is known of it.

    build: () -> the model in evaluation mode, images (n, 1, 28, 28) in [0,1] -> logits. flag: the diagnosis it must
    raise; None for a healthy one. allowed: blocking diagnoses that follow from the flaw and are true of it. clean,
    by_hand, naive: accuracies measured on the first n images, in [0,1]: without attack, under its attack of
    `by_hand.hand_attack`, and under PGD-20 on float32 cross-entropy through the model as it is (or under its ill
    attack). Of random models they are means over 20 draws. classes: the labels of its own task, renumbered 0, 1, ...;
    None for all ten. claimed_clean: what its authors say that its clean accuracy is. reject: the class that means
    "rejected", which no attacker wants. attack: the ill attack, where not the model is the patient.
    """

    name: str
    build: Callable[[], nn.Module]
    flag: str | None
    clean: float
    by_hand: float | None
    naive: float | None
    allowed: frozenset[str] = frozenset()
    eps: float = 16 / 255
    n: int = 60
    seed: int = 0
    classes: tuple[int, ...] | None = None
    claimed_clean: float | None = None
    reject: int | None = None
    attack: WrappedAttack | None = None

    def images(self, n: int | None = None) -> tuple[Tensor, Tensor]:
        """The first n (by default `self.n`) images (n, 1, 28, 28) of the embedded ones and their labels (n,)."""
        data = FASHION_MNIST.load()
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        if self.classes is not None:
            keep = torch.isin(y, torch.tensor(self.classes))
            x, y = x[keep], (y[keep][:, None] == torch.tensor(self.classes)).int().argmax(1)
        n = self.n if n is None else n
        return x[:n], y[:n]


def undefended() -> nn.Module:
    return from_zoo(UNDEFENDED)


def behind(front: Callable[[], nn.Module]) -> nn.Module:
    """The undefended network behind a new `front`."""
    return parts.Front(front(), undefended()).eval()


def followed(last: Callable[[], nn.Module]) -> nn.Module:
    """The undefended network and then a new `last`."""
    return nn.Sequential(undefended(), last()).eval()


def stepping_away() -> nn.Module:
    network = trained("fgsm_overfitted")
    return parts.Front(moving.Away(network, 0.1), network).eval()


def one_of_three() -> nn.Module:
    return moving.Pick([undefended(), from_zoo("sim_adv-fashion_mnist-vanilla"), trained("normalised")]).eval()


# Where gradients are withheld, asking without them gets further: true of the flaw and no second one.
UNSEEN = frozenset({"black_box_beats_white_box"})
# Both set the gradient against finite differences, one at a small and one at a large length.
BENT = frozenset({"unstable_gradient", "masked_gradient"})

LIST = (
    Patient("plain", undefended, None, 0.9, 0.0, 0.017),
    Patient("pgd_at", partial(from_zoo, "pgd_at-fashion_mnist-small"), None, 0.733, 0.683, 0.683),
    Patient("sleeper", lambda: moving.Sleepy(from_zoo("pgd_at-fashion_mnist-small")).eval(), None, 0.733, 0.683, 0.683),
    Patient("softmax_appended", lambda: followed(lambda: nn.Softmax(1)), "softmax_output", 0.9, 0.0, 0.017),
    # A saturated softmax in float32 has no gradient at all: the same flaw, seen at the input.
    Patient("logits_times_1000", lambda: followed(lambda: parts.Scale(1000)), "saturated_softmax", 0.9, 0.0,
            0.883, UNSEEN | {"vanishing_gradient"}),
    Patient("quantised_logits", lambda: followed(lambda: parts.Steps(100)), "quantised_output", 0.9, 0.0, 0.9,
            UNSEEN | {"shattered_gradient"}),
    Patient("quantised_input", lambda: behind(lambda: parts.Steps(8)), "shattered_gradient", 0.883, 0.0, 0.867, UNSEEN),
    Patient("bit_depth", lambda: behind(lambda: parts.Steps(7)), "shattered_gradient", 0.883, 0.2, 0.917, UNSEEN),
    Patient("jpeg", lambda: behind(parts.Jpeg), "shattered_gradient", 0.867, 0.083, 0.833, UNSEEN),
    Patient("gradient_clipped", lambda: behind(parts.Clipped), "masked_gradient", 0.9, 0.0, 0.85,
            UNSEEN | {"unstable_gradient"}),
    Patient("ripple", lambda: behind(parts.Ripple), "black_box_beats_white_box", 0.9, 0.0, 0.683,
            BENT),
    Patient("detached_fgsm_purifier", stepping_away, "dynamic", 0.8, 0.0, 0.4, UNSEEN | {"shattered_gradient"},
            eps=0.1),
    # Its gradient leaves out how the steps follow the image, so finite differences contradict it.
    Patient("anti_adversary", lambda: moving.Toward(undefended()).eval(), "dynamic", 0.883, 0.0, 0.817,
            UNSEEN | BENT),
    Patient("uniform_noise", lambda: behind(moving.Noise), "randomized", 0.874, 0.018, 0.094),
    Patient("random_resize_pad", lambda: behind(moving.ResizePad), "randomized", 0.813, 0.13, 0.325),
    Patient("random_pick", one_of_three, "randomized", 0.887, 0.073, 0.28),
    Patient("batch_statistics", partial(trained, "batch_statistics"), "batch_dependent", 0.867, 0.017, 0.3),
    Patient("stateful", lambda: moving.Wary([undefended(), trained("normalised")]).eval(), "stateful", 0.9, 0.05, 0.35),
    Patient("normalised_twice", lambda: nn.Sequential(Normalise(), trained("normalised")).eval(),
            "clean_accuracy_handshake", 0.583, 0.0, 0.0, claimed_clean=0.909),
    # Trained on pixels from 0 to 255, and given those from 0 to 1: it sees hardly more than black.
    Patient("expects_255", lambda: nn.Sequential(parts.Scale(1 / 255), undefended()).eval(),
            "clean_accuracy_handshake", 0.117, 0.117, 0.117, claimed_clean=0.903),
    Patient("thermometer", partial(trained, "thermometer"), "shattered_gradient", 0.867, 0.0, 0.833, UNSEEN),
    Patient("k_winners", partial(trained, "k_winners"), "unstable_gradient", 0.817, 0.017, 0.067,
            UNSEEN | {"masked_gradient"}),
    Patient("detector", partial(trained, "detector"), "reject_class", 0.817, 0.0, 1.0, reject=REJECT),
    Patient("two_class", partial(trained, "two_class"), "too_few_classes", 0.9, 0.0, 0.0, classes=TASKS[2]),
    Patient("three_class", partial(trained, "three_class"), "too_few_classes", 0.867, 0.0, 0.0, classes=TASKS[3]),
    Patient("last_iterate", undefended, "silent_success", 0.9, 0.0, 0.533, attack=attackers.last_iterate),
    Patient("two_steps", undefended, "incomplete_optimisation", 0.9, 0.0, 0.567, attack=attackers.two_steps),
    Patient("foreign_gradient", partial(from_zoo, "pgd_at-fashion_mnist-small"), "transfer_failure", 0.733,
            0.683, 0.733, attack=attackers.foreign_gradient),
)  # fmt: skip
PATIENTS = {patient.name: patient for patient in LIST}
