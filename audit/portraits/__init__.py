"""What can be seen of a finished run and needs the model once more: attention, features, channels, losses.

Measured on a borrowed copy when the last unit is done, stored as `portraits.npz`, drawn by `reports`. None of it has
a say in the verdict.
"""
