"""Figures 3 and 4 of SIM-Adv on the zoo's LeNets: `python -m tests.rho -n 500` prints the table of docs/papers/sim_adv.md."""

from __future__ import annotations

import argparse

import torch

from audit.datasets import FASHION_MNIST
from defenses.base import ZOO
from defenses.sim_adv import EPS, SIM_ADV
from defenses.sim_adv.ratio import rho_curve, rho_steps

SHOWN = (0, 1, 2, 3, 5, 10, 20, 30)
NETWORKS = ("vanilla", "bim", "sim-adv-only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="images (default: the first 500 embedded ones)")
    data = FASHION_MNIST.load().first(parser.parse_args().n)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    print("| | " + " | ".join(map(str, SHOWN)) + " |")
    for name in NETWORKS:
        checkpoint = SIM_ADV.checkpoint("fashion_mnist", ZOO / f"sim_adv-fashion_mnist-{name}.safetensors")
        network = SIM_ADV.load(checkpoint)
        curves = {"n1 = n2 (Fig. 3)": rho_curve(network, x, y, eps=EPS, settings=SHOWN)}
        curves["steps of BIM(10,30) (Fig. 4)"] = rho_steps(network, x, y, eps=EPS)
        for kind, curve in curves.items():
            print(f"| {name}, {kind} | " + " | ".join(f"{curve[k]:.2f}" for k in SHOWN) + " |")


if __name__ == "__main__":
    main()
