"""Resuming a stream: the id that an event carries, and what a client's `Last-Event-ID` asks for.

No state is kept between requests. The same seed gives the same text, so it is generated again, and what the client
has already is left out.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from app.api.schemas import GenerateRequest
from app.serving.model_card import ModelCard
from model.errors import InputError
from model.generation.receipt import FORMER_IDENTITY, Parameters
from model.sampling.noise import SEED_LIMIT
from model.vocabulary import Vocabulary

HEADER = "Last-Event-ID"
MAX_TOKEN_LENGTH = 512  # characters; no token has so many, and the pattern is never searched in more
RESUME_TOKEN = re.compile(
    r"(?P<checkpoint>[0-9a-f]{12}):(?P<numerics>[a-z0-9-]+):(?P<parameters>[0-9a-f]{8}):(?P<seed>[0-9]{1,16})"
    r":(?P<sent>[0-9]{1,18}(?:,[0-9]{1,18})*)(?P<done>:done)?"
)
RESUME_REMEDY = "write the text again without it"


@dataclass(frozen=True)
class ResumeToken:
    """Which text an answer is of, and where it goes on. `str(token)` is the id of an event.

    Attributes:
        checkpoint: the first 12 hex digits of its identity.
        numerics: the numerics mode, such as `cpu-int8`.
        parameters: the first 8 hex digits of the SHA-256 of the request's parameters.
        seed: the seed.
        sent: for each sample, how many of its characters the client has.
        done: True in the id of the last event: there is nothing left to send.
    """

    checkpoint: str
    numerics: str
    parameters: str
    seed: int
    sent: tuple[int, ...]
    done: bool = False

    def __str__(self) -> str:
        sent = ",".join(map(str, self.sent))
        suffix = ":done" if self.done else ""
        return f"{self.checkpoint}:{self.numerics}:{self.parameters}:{self.seed}:{sent}{suffix}"

    @classmethod
    def beginning(cls, request: GenerateRequest, card: ModelCard) -> "ResumeToken":
        """The token of a resolved request of which nothing has been sent yet."""
        parameters = Parameters.model_validate(request.parameters()).model_dump()
        canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return cls(card.checkpoint, card.numerics, digest, request.seed or 0, (0,) * request.num_samples)

    @classmethod
    def parse(cls, text: str) -> "ResumeToken":
        """The token that an event's id stands for.

        Raises:
            InputError: the text is not the id of an event of this server.
        """
        match = RESUME_TOKEN.fullmatch(text) if len(text) <= MAX_TOKEN_LENGTH else None
        if match is None or int(match["seed"]) >= SEED_LIMIT:
            raise InputError(HEADER, f"is not the id of one of this server's events; {RESUME_REMEDY}")
        return cls(
            checkpoint=match["checkpoint"],
            numerics=match["numerics"],
            parameters=match["parameters"],
            seed=int(match["seed"]),
            sent=tuple(map(int, match["sent"].split(","))),
            done=match["done"] is not None,
        )


def resume(
    request: GenerateRequest, header: str | None, vocabulary: Vocabulary, card: ModelCard
) -> tuple[GenerateRequest, ResumeToken]:
    """The resolved request, and the token from which its answer goes on: the beginning if there is no header.

    Raises:
        InputError: the header is malformed, or the id of an event of another text.
    """
    if not header:
        resolved = request.resolved(vocabulary)
        return resolved, ResumeToken.beginning(resolved, card)
    token = ResumeToken.parse(header)
    if request.seed not in (None, token.seed):
        raise InputError(HEADER, f"is of a text with seed {token.seed}, not {request.seed}; {RESUME_REMEDY}")
    resolved = request.model_copy(update={"seed": token.seed}).resolved(vocabulary)
    if token.checkpoint == card.former:
        raise InputError(
            HEADER,
            f"names this checkpoint by {card.former}, {FORMER_IDENTITY}; "
            f"it is {card.checkpoint} now; {RESUME_REMEDY}",
        )
    _check_same_text(token, ResumeToken.beginning(resolved, card), resolved.max_new_tokens)
    return resolved, token


def _check_same_text(token: ResumeToken, beginning: ResumeToken, max_new_tokens: int) -> None:
    """Refuse a token of another text than the one that `beginning` is of.

    Raises:
        InputError: it is of another checkpoint, numerics mode or request.
    """
    if (token.checkpoint, token.numerics) != (beginning.checkpoint, beginning.numerics):
        there = f"{token.checkpoint} on {token.numerics}"
        here = f"{beginning.checkpoint} on {beginning.numerics}"
        raise InputError(HEADER, f"is of a text by {there}, but {here} writes here; {RESUME_REMEDY}")
    if token.parameters != beginning.parameters:
        raise InputError(HEADER, f"is of a text with other parameters; ask with the same ones, or {RESUME_REMEDY}")
    if len(token.sent) != len(beginning.sent):
        raise InputError(
            HEADER, f"counts {len(token.sent)} samples, not num_samples {len(beginning.sent)}; {RESUME_REMEDY}"
        )
    if max(token.sent) > max_new_tokens:
        raise InputError(
            HEADER, f"counts {max(token.sent)} characters, but max_new_tokens is {max_new_tokens}; {RESUME_REMEDY}"
        )
