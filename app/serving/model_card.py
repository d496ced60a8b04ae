"""The model card: what is being served, for `/info` and the page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.checkpoint import Checkpoint
from model.device import Numerics
from model.vocabulary import TYPEWRITER


@dataclass(frozen=True)
class ModelCard:
    """Facts about the checkpoint and the machine it runs on.

    `identity` is the SHA-256 of all that decides a text, `checkpoint` its beginning; `former` is that of what it
    was before it covered the vocabulary, which is not told, but known where it is met. `parameters` counts as
    nanoGPT does, without position embeddings. `val_loss`, `baselines` and the points of `curve` (step, train, val)
    are in nats per character. `default_prompt` is what a text follows where no prompt is given; `replacements` says
    what to write for common characters outside the vocabulary.
    `seconds`, `preset` and `steps` are of the training run. `report` tells whether texts can be reported on,
    `snapshots` the steps at which the run beside it was kept.
    """

    checkpoint: str
    identity: str
    former: str
    parameters: int
    block_size: int
    positions: str
    vocabulary: str
    default_prompt: str
    replacements: dict[str, str]
    n_layer: int
    n_head: int
    n_embd: int
    device: str
    numerics: str
    dataset: dict[str, Any] | None
    val_loss: float | None
    val_method: str | None
    baselines: dict[str, float] | None
    curve: list[dict[str, Any]]
    trained: str | None
    seconds: float | None
    preset: str | None
    steps: int | None
    report: bool
    snapshots: list[int]

    @classmethod
    def of(cls, checkpoint: Checkpoint, numerics: Numerics, snapshots: Sequence[int] = ()) -> "ModelCard":
        """The card of a checkpoint as it is served here."""
        config, training, vocabulary = checkpoint.config, checkpoint.training, checkpoint.vocabulary
        recipe, points = training.get("recipe", {}), training.get("curve", [])
        foreign = [character for character in TYPEWRITER if character not in vocabulary.characters]
        return cls(
            checkpoint=checkpoint.identity[:12],
            identity=checkpoint.identity,
            former=checkpoint.former_identity[:12],
            parameters=checkpoint.parameter_count,
            block_size=config.block_size,
            positions=config.positions,
            vocabulary="".join(vocabulary.characters),
            default_prompt=vocabulary.default_prompt,
            replacements={character: vocabulary.replacement(character) for character in foreign},
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            device=numerics.device.type,
            numerics=numerics.name,
            dataset=training.get("dataset"),
            val_loss=training.get("val_loss"),
            val_method=training.get("val_method"),
            baselines=training.get("baselines"),
            curve=[{key: _rounded(point[key]) for key in ("step", "train", "val")} for point in points],
            trained=training.get("date"),
            seconds=training.get("seconds"),
            preset=recipe.get("preset"),
            steps=recipe.get("max_iters"),
            report=checkpoint.index is not None,
            snapshots=list(snapshots),
        )

    def content(self) -> dict[str, Any]:
        """The card as JSON, with the vocabulary's size beside its characters."""
        content = asdict(self) | {"vocabulary_size": len(self.vocabulary)}
        del content["former"]
        return content


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
