"""One thread: the tests' tensors are tiny, and a busy machine would only pass them around."""

import torch

torch.set_num_threads(1)
