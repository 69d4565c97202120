"""What a forward pass computes in is what was asked for, also where torch's own defaults are less."""
import warnings

import pytest
import torch

from mote.runtime.precision import PRECISIONS, autocast


@pytest.fixture(autouse=True)
def settings():
    """The process's settings are as they were before a test."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("before", PRECISIONS)
@pytest.mark.parametrize("precision, matmul, convolutions", [("fp32", "highest", False), ("tf32", "high", True),
                                                             ("bf16", "highest", False)])
def test_matmuls_and_convolutions_are_rounded_to_tf32_only_where_it_is_asked_for(before, precision, matmul,
                                                                                 convolutions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")                           # of settings that torch wants to give up
        autocast(torch.device("cpu"), before)
        autocast(torch.device("cpu"), precision)
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.backends.cudnn.allow_tf32 == convolutions
