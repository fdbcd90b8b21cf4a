"""The catalogue of GPUs: every current card is in it, under the name that nvidia-smi prints."""

from __future__ import annotations

import pytest

from deploytk.base.errors import UsageError
from deploytk.hardware.catalogue import MIB, find_gpu, known_gpu, larger_gpus

# As nvidia-smi prints them; GeForce and Tesla are brands, NVIDIA has been in front of them since driver 465.
PRINTED = """
    Tesla P40 | Tesla P100-PCIE-16GB | Tesla V100-SXM2-32GB | Tesla V100S-PCIE-32GB | Tesla T4 | Quadro RTX 8000
    NVIDIA TITAN RTX | NVIDIA GeForce RTX 2080 Ti | NVIDIA GeForce GTX 1660 SUPER | NVIDIA GeForce RTX 3060
    NVIDIA GeForce RTX 3060 Ti | NVIDIA GeForce RTX 3070 | NVIDIA GeForce RTX 3080 Ti | NVIDIA GeForce RTX 3090 Ti
    NVIDIA GeForce RTX 3080 Laptop GPU | NVIDIA GeForce RTX 4050 Laptop GPU | NVIDIA GeForce RTX 4060
    NVIDIA GeForce RTX 4060 Ti | NVIDIA GeForce RTX 4070 SUPER | NVIDIA GeForce RTX 4070 Ti SUPER
    NVIDIA GeForce RTX 4080 SUPER | NVIDIA GeForce RTX 4090 | NVIDIA GeForce RTX 4090 D
    NVIDIA GeForce RTX 4090 Laptop GPU | NVIDIA GeForce RTX 5060 Ti | NVIDIA GeForce RTX 5070 Ti
    NVIDIA GeForce RTX 5080 | NVIDIA GeForce RTX 5090 | NVIDIA GeForce RTX 5090 D | NVIDIA GeForce RTX 5090 Laptop GPU
    NVIDIA RTX A2000 12GB | NVIDIA RTX A4000 | NVIDIA RTX A4500 | NVIDIA RTX A5000 | NVIDIA RTX A6000
    NVIDIA RTX 4000 SFF Ada Generation | NVIDIA RTX 5000 Ada Generation | NVIDIA RTX 6000 Ada Generation
    NVIDIA RTX PRO 4000 Blackwell | NVIDIA RTX PRO 6000 Blackwell Workstation Edition
    NVIDIA RTX PRO 6000 Blackwell Server Edition | NVIDIA A2 | NVIDIA A10 | NVIDIA A10G | NVIDIA A16 | NVIDIA A30
    NVIDIA A40 | NVIDIA A100-SXM4-40GB | NVIDIA A100-SXM4-80GB | NVIDIA A100 80GB PCIe | NVIDIA A100-PCIE-40GB
    NVIDIA A800-SXM4-80GB | NVIDIA A800 80GB PCIe | NVIDIA L4 | NVIDIA L20 | NVIDIA L40 | NVIDIA L40S
    NVIDIA H20 | NVIDIA H20-3e | NVIDIA H100 80GB HBM3 | NVIDIA H100 PCIe | NVIDIA H100 NVL | NVIDIA H800
    NVIDIA H800 PCIe | NVIDIA GH200 480GB | NVIDIA H200 | NVIDIA H200 NVL | NVIDIA B200 | NVIDIA GB200
    NVIDIA B300 SXM6 AC | NVIDIA GB300 | NVIDIA GB10
"""


@pytest.mark.parametrize("name", [name.strip() for name in PRINTED.replace("\n", "|").split("|") if name.strip()])
def test_a_card_is_found_by_the_name_that_nvidia_smi_prints(name: str) -> None:
    found = known_gpu(name)

    assert found
    assert found.capability
    assert found.bandwidth_gb_s


def test_cards_that_differ_by_a_word_are_told_apart() -> None:
    # MiB as nvidia-smi prints them: a laptop's 4090 has 16 GB, the 4070 Ti SUPER 16, the Ti 12
    sizes = {
        name: find_gpu(name).total_bytes // MIB for name in ("RTX 4090 Laptop", "RTX 4070 Ti", "RTX 4070 Ti SUPER")
    }

    assert sizes == {"RTX 4090 Laptop": 16376, "RTX 4070 Ti": 12282, "RTX 4070 Ti SUPER": 16376}


def test_only_cards_that_people_rent_or_buy_for_it_are_proposed() -> None:
    proposed = larger_gpus(find_gpu("RTX 3090"))

    assert "A100-80G" in proposed
    assert not [name for name in proposed if "Laptop" in name or "GTX" in name]


def test_a_name_that_is_none_gets_a_hint_that_can_be_read() -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu("a potato")

    assert len(caught.value.hint) < 400
    assert "as nvidia-smi prints it, or a size such as 24G" in caught.value.hint
