"""The ratio rho of Sec. 4, Eq. 13: how near an attack comes to its strongest setting."""

from __future__ import annotations

from collections.abc import Mapping


def rho(error_rates: Mapping[int, float]) -> dict[int, float]:
    """Error rates in [0,1] by setting (n1 = n2 for Fig. 3, the step for Fig. 4), each divided by that of the largest.

    Raises ValueError for no rates, or where the largest setting leaves no error to compare with.
    """
    if not error_rates:
        raise ValueError("rho needs at least one error rate; measure the attack at one setting or more")
    strongest = error_rates[max(error_rates)]
    if not strongest > 0:
        raise ValueError(f"the error rate at {max(error_rates)} is {strongest}, expected more than 0; raise eps")
    return {setting: rate / strongest for setting, rate in sorted(error_rates.items())}
