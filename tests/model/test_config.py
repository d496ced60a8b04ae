"""What a configuration says of its network is true of the network."""

from dataclasses import replace
from itertools import product
from typing import Literal

import pytest

from model.config import GPTConfig
from model.network import GPT

CONFIG = GPTConfig(11, n_layer=2, n_head=2, n_embd=8, block_size=6)
VARIANTS = list(product(("learned", "rotary"), ("layernorm", "rmsnorm"), (False, True)))


@pytest.mark.parametrize(("positions", "norm", "bias"), VARIANTS)
def test_its_shapes_are_those_of_the_network(
    positions: Literal["learned", "rotary"], norm: Literal["layernorm", "rmsnorm"], bias: bool
) -> None:
    config = replace(CONFIG, positions=positions, norm=norm, bias=bias)
    network = {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}
    assert list(config.weight_shapes.items()) == list(network.items())
