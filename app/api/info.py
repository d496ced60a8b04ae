"""The answer of `/info`: its fields. What they hold is made by `app.serving.model_card`."""

from pydantic import Field

from app.api.logprobs import AnswerModel
from app.serving.model_card import ModelCard


class LossPoint(AnswerModel):
    """One evaluation of a training run; losses are in nats per character."""

    step: int
    train: float | None
    """The mean since the evaluation before; null before the first step."""
    val: float


class Info(AnswerModel):
    """The model card: what is served."""

    checkpoint: str
    """First 12 hex digits of the checkpoint's identity."""
    identity: str
    """SHA-256 of all that decides a text: weights, configuration, vocabulary."""
    parameters: int
    """As nanoGPT counts them: without position embeddings."""
    block_size: int
    """How many characters the model sees at once."""
    positions: str
    """How positions are told apart: rotary or learned."""
    vocabulary: str
    """All characters that the model knows, in the order of their ids."""
    default_prompt: str
    """What an empty prompt stands for."""
    replacements: dict[str, str]
    """What to write for common characters that the model does not know."""
    n_layer: int
    n_head: int
    n_embd: int
    device: str
    numerics: str
    """Device and number format: the same seed gives the same text for one checkpoint and one of these."""
    dataset: dict[str, str | int] | None
    """The text that the model was trained on: its name, size and SHA-256, as far as they are known."""
    val_loss: float | None
    """On text that the model was not trained on, in nats per character."""
    val_method: str | None
    """How `val_loss` was computed."""
    baselines: dict[str, float] | None
    """The losses of simpler models on the same text, by name."""
    curve: list[LossPoint]
    """The loss curve of the training run."""
    trained: str | None
    """The date of the training run, in ISO format."""
    seconds: float | None
    """How long it took."""
    preset: str | None
    """Its named settings."""
    steps: int | None
    """How many it was to have."""
    report: bool
    """Whether the checkpoint has what `/report` needs."""
    snapshots: list[int]
    """The steps at which snapshots of the run were kept, for `/snapshots`."""
    vocabulary_size: int = Field(ge=1)

    @classmethod
    def of(cls, card: ModelCard) -> "Info":
        """The answer about a model."""
        return cls.model_validate(card.content())
