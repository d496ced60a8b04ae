"""What `/info` says of a checkpoint, however much is known of its training."""

from dataclasses import replace
from pathlib import Path

from app.serving.model_card import ModelCard
from model.checkpoint import CurvePoint, TrainingRecord, read_checkpoint
from model.vocabulary import Vocabulary
from tests.tiny import INT8, LEARNED, VOCABULARY, tiny_checkpoint

BUNDLED = Path(__file__).parents[3] / "checkpoints" / "shakespeare-char"


def test_a_checkpoint_without_a_past() -> None:
    """As one that was imported."""
    content = ModelCard.of(replace(tiny_checkpoint(LEARNED), training={}), INT8).content()
    assert content["positions"] == "learned"
    assert content["curve"] == []
    for name in ("baselines", "preset", "steps", "seconds", "val_loss", "dataset"):
        assert content[name] is None


def test_a_run_is_told_of_without_its_texts() -> None:
    curve = [
        CurvePoint(step=0, train=None, val=4.2, lr=0.1, sample="QX"),
        CurvePoint(step=5, train=3.0, val=3.1, lr=0.1, tokens_per_second=9.0, sample="the"),
    ]
    record = TrainingRecord(
        curve=curve, recipe={"preset": "gpu", "max_iters": 5}, seconds=12.5, baselines={"uniform": 4.1}
    )
    content = ModelCard.of(replace(tiny_checkpoint(), training=record), INT8).content()
    assert content["positions"] == "rotary"
    assert content["curve"] == [{"step": 0, "train": None, "val": 4.2}, {"step": 5, "train": 3.0, "val": 3.1}]
    assert (content["preset"], content["steps"], content["seconds"]) == ("gpu", 5, 12.5)
    assert content["baselines"] == {"uniform": 4.1}


def test_replacements_are_only_for_what_is_missing_and_only_of_what_is_known() -> None:
    replacements = ModelCard.of(tiny_checkpoint(), INT8).replacements
    assert replacements["’"] == "'"
    assert replacements["—"] == "--"
    assert replacements["“"] == "?"  # this vocabulary has no double quote
    assert not replacements.keys() & set(VOCABULARY.characters)
    assert set("".join(replacements.values())) <= set(VOCABULARY.characters)
    for character, replacement in replacements.items():
        assert replacement == VOCABULARY.replacement(character)


def test_a_character_that_the_model_knows_needs_no_replacement() -> None:
    checkpoint = replace(tiny_checkpoint(), vocabulary=Vocabulary("\t ’-"))
    replacements = ModelCard.of(checkpoint, INT8).replacements
    assert "’" not in replacements
    assert "\t" not in replacements
    assert replacements["—"] == "--"


def test_the_bundled_model_has_baselines_that_it_beats() -> None:
    card = ModelCard.of(read_checkpoint(BUNDLED), INT8)
    assert card.baselines is not None
    assert card.val_loss is not None
    losses = list(card.baselines.values())
    assert list(card.baselines) == ["uniform", "1-gram", "2-gram", "3-gram", "5-gram"]
    assert losses == sorted(losses, reverse=True)
    assert card.val_loss < losses[-1]
    assert min(point["val"] for point in card.curve) == round(card.val_loss, 4)
