"""The model card: what is being served, for `/info` and the page."""

from dataclasses import asdict, dataclass
from typing import Any

from model.checkpoint import Checkpoint
from model.device import Numerics


@dataclass(frozen=True)
class ModelCard:
    """Facts about the checkpoint and the machine it runs on.

    `parameters` counts as nanoGPT does, without position embeddings; `val_loss` is in nats per character.
    `identity` is the SHA-256 of the weights and the configuration, `checkpoint` its beginning.
    """

    checkpoint: str
    identity: str
    parameters: int
    block_size: int
    vocabulary: str
    n_layer: int
    n_head: int
    n_embd: int
    device: str
    numerics: str
    dataset: dict[str, Any] | None
    val_loss: float | None
    val_method: str | None
    trained: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint, numerics: Numerics) -> "ModelCard":
        """The card of a checkpoint as it is served here."""
        config, training = checkpoint.config, checkpoint.training
        return cls(
            checkpoint=checkpoint.identity[:12],
            identity=checkpoint.identity,
            parameters=checkpoint.parameter_count,
            block_size=config.block_size,
            vocabulary="".join(checkpoint.vocabulary.characters),
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            device=numerics.device.type,
            numerics=numerics.name,
            dataset=training.get("dataset"),
            val_loss=training.get("val_loss"),
            val_method=training.get("val_method"),
            trained=training.get("date"),
        )

    def content(self) -> dict[str, Any]:
        """The card as JSON, with the vocabulary's size beside its characters."""
        return asdict(self) | {"vocabulary_size": len(self.vocabulary)}
