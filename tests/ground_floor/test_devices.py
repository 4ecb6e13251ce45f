"""Computing goes to the best there is, each process to a GPU of its own."""

import pytest
import torch

from jepa_mpc.devices import choose_device, has_bfloat16
from jepa_mpc.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_gets_a_gpu_of_its_own(two_gpus, monkeypatch, name):
    assert choose_device(name) == torch.device("cuda")
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert choose_device(name) == torch.device("cuda", rank)


def test_a_gpu_past_the_last_is_not_there(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="cuda:2"):
        choose_device("cuda:2")


def test_bfloat16_is_asked_of_the_device_itself(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert [has_bfloat16(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [True, False, False]
