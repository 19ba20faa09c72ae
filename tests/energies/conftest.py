"""Small networks on small pictures."""

import torch


def pytest_configure(config):
    torch.set_num_threads(1)  # on tensors this small a second thread costs more than it brings
