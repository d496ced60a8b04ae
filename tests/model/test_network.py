import math

import pytest
import torch

from model.config import GPTConfig
from model.errors import InputError
from model.network import GPT, rotary_angles, rotate
from tests.tiny import LEARNED, ROTARY


@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_a_later_character_changes_no_earlier_logits(config: GPTConfig) -> None:
    torch.manual_seed(0)
    network = GPT(config).eval()
    ids = torch.randint(config.vocab_size, (2, 16))
    changed = ids.clone()
    changed[:, 10] = (ids[:, 10] + 1) % config.vocab_size
    before = network(ids)
    after = network(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_nanogpts_shakespeare_model_has_its_parameter_count() -> None:
    """nanoGPT prints 10.65M: all parameters but the position embeddings."""
    with torch.device("meta"):
        network = GPT(GPTConfig(vocab_size=65))
    count = sum(p.numel() for name, p in network.named_parameters() if name != "positions.weight")
    assert f"{count / 1e6:.2f}M" == "10.65M"


def test_initial_loss_is_that_of_a_guess() -> None:
    torch.manual_seed(0)
    network = GPT(ROTARY)
    ids = torch.randint(ROTARY.vocab_size, (8, 16))
    loss = torch.nn.functional.cross_entropy(network(ids).flatten(0, 1), ids.roll(-1).flatten())
    assert abs(loss.item() - math.log(ROTARY.vocab_size)) < 0.3


def test_rotation_depends_on_the_distance_alone_even_far_out() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 32)

    def product(position: int, distance: int) -> float:
        rotated_query = rotate(query, *rotary_angles(torch.tensor([position + distance]), 32))
        rotated_key = rotate(key, *rotary_angles(torch.tensor([position]), 32))
        return (rotated_query * rotated_key).sum().item()

    assert product(1_000_000, 7) == pytest.approx(product(0, 7), abs=1e-4)
    assert product(0, 7) != pytest.approx(product(0, 8), abs=1e-2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_layer", 0),
        ("vocab_size", True),
        ("n_head", 3),
        ("norm", "batchnorm"),
        ("block_size", 1),
        ("n_embd", "8"),
    ],
)
def test_a_bad_architecture_is_refused_by_field(field: str, value: object) -> None:
    values = {"vocab_size": 5, "n_embd": 16, "n_head": 2, field: value}
    with pytest.raises(InputError) as caught:
        GPTConfig(**values)  # type: ignore[arg-type]
    assert caught.value.field == ("n_embd" if field == "n_head" else field)


def test_rotary_positions_need_an_even_head() -> None:
    with pytest.raises(InputError, match="even head size"):
        GPTConfig(5, n_embd=6, n_head=2, positions="rotary")
