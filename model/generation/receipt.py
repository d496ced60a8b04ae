"""A receipt: what a generated text was made of, enough to write it again. Knows nothing of how that is done."""

from pydantic import BaseModel, ConfigDict, Field

from model.generation.sequence import TextSequence, make_sequences
from model.sampling.noise import SEED_LIMIT
from model.sampling.sampler import Sampling
from model.vocabulary import Vocabulary

# What `Checkpoint.former_identity` is called in messages.
FORMER_IDENTITY = "its identity before one covered the vocabulary"


class Parameters(BaseModel):
    """A request's parameters, with defaults filled."""

    model_config = ConfigDict(frozen=True)

    prompt: str = Field(min_length=1)
    max_new_tokens: int = Field(ge=1)
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    num_samples: int = Field(ge=1)
    stop: list[str]


class Digest(BaseModel):
    """One sample of a receipt: the SHA-256 (hex) of its text, and the text itself where it is at hand."""

    model_config = ConfigDict(frozen=True)

    index: int
    sha256: str
    text: str | None = None


class Receipt(BaseModel):
    """A request, the checkpoint (SHA-256, hex) and numerics that answered it, and its samples."""

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    numerics: str
    seed: int = Field(ge=0, lt=SEED_LIMIT)
    parameters: Parameters
    samples: list[Digest]

    def sequences(self, vocabulary: Vocabulary) -> list[TextSequence]:
        """The sequences that write the same samples again.

        Raises:
            InputError: a parameter is out of range.
            UnknownCharactersError: the prompt is of another vocabulary.
        """
        parameters = self.parameters
        return make_sequences(
            vocabulary,
            Sampling(parameters.temperature, parameters.top_k, parameters.top_p, parameters.min_p),
            prompt=parameters.prompt,
            seed=self.seed,
            num_samples=parameters.num_samples,
            max_new_tokens=parameters.max_new_tokens,
            stop=parameters.stop,
        )
