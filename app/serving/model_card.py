"""The model card: facts about what is served, for `/info` and the page. Owns the fields of `/info`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.checkpoint import Checkpoint
from model.device import Numerics
from model.vocabulary import TYPEWRITER


@dataclass(frozen=True)
class ModelCard:
    """Facts about the checkpoint and the machine it runs on. Losses are in nats per character.

    Attributes:
        checkpoint: the first 12 hex digits of `identity`.
        identity: the SHA-256 (hex) of all that decides a text: weights, configuration, vocabulary.
        former: the first 12 hex digits of an older identity, which did not cover the vocabulary; not published, but
            recognised in requests, for a better refusal.
        parameters: their number as nanoGPT counts: without position embeddings.
        positions: the kind of positions, such as rotary.
        vocabulary: all characters in the order of their ids.
        default_prompt: what an empty prompt stands for.
        replacements: what to write for common characters that are not in the vocabulary.
        val_method: how `val_loss` was computed.
        baselines: losses of simpler models, by name.
        curve: the loss curve of training, of points with `step`, `train` and `val`.
        trained: the date of training, in ISO format.
        seconds, preset, steps: of the training run.
        report: whether the checkpoint has what `/report` needs.
        snapshots: the steps at which a snapshot of the training run was kept.
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
        config = checkpoint.config
        training = checkpoint.training
        vocabulary = checkpoint.vocabulary
        recipe = training.get("recipe", {})
        curve = training.get("curve", [])
        unknown = [character for character in TYPEWRITER if character not in vocabulary.characters]
        return cls(
            checkpoint=checkpoint.identity[:12],
            identity=checkpoint.identity,
            former=checkpoint.former_identity[:12],
            parameters=checkpoint.parameter_count,
            block_size=config.block_size,
            positions=config.positions,
            vocabulary="".join(vocabulary.characters),
            default_prompt=vocabulary.default_prompt,
            replacements={character: vocabulary.replacement(character) for character in unknown},
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            device=numerics.device_type,
            numerics=numerics.name,
            dataset=training.get("dataset"),
            val_loss=training.get("val_loss"),
            val_method=training.get("val_method"),
            baselines=training.get("baselines"),
            curve=[{key: _rounded(point[key]) for key in ("step", "train", "val")} for point in curve],
            trained=training.get("date"),
            seconds=training.get("seconds"),
            preset=recipe.get("preset"),
            steps=recipe.get("max_iters"),
            report=checkpoint.index is not None,
            snapshots=list(snapshots),
        )

    def content(self) -> dict[str, Any]:
        """The JSON fields of `/info`."""
        content = asdict(self) | {"vocabulary_size": len(self.vocabulary)}
        del content["former"]
        return content


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
