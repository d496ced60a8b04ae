"""Continuous batching: sequences join and leave between steps, and every step gives each its next characters.

A step reads top to bottom in `Generator.step`: the `scheduler` plans it, the backend computes logits, `speculation`
says which draft tokens to try and which stand, `sampler.draw` chooses, and each `TextSequence` accepts the choice.
Knows nothing of threads or of HTTP.
"""

from collections.abc import Collection, Iterator
from collections.abc import Generator as PythonGenerator
from importlib.util import find_spec

import numpy as np

from model.backends.base import NOT_FINITE, Backend, DecodeInput, MultiStepDecode
from model.checkpoint import Checkpoint
from model.device import Numerics
from model.generation.logprobs import add_logprobs
from model.generation.scheduler import Scheduler
from model.generation.sequence import Chunk, TextSequence
from model.generation.slot_state import SlotState, StepResult
from model.generation.speculation import count_accepted, max_draft_tokens, propose_draft_tokens, take_given_ids
from model.sampling.ngram_draft import Draft
from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Sampling, draw


class Generator:
    """Writes many texts at once over a backend's slots; none changes another's text.

    A text depends on its request alone, since everything that decides it does: a row's logits depend on its own
    sequence only (the backends' promise), noise on the seed, the sample and the position, and where a window of
    learned positions begins again on the length alone. How many characters a step gives depends on the company.

    So there is no state to lose either: a text that was interrupted is resumed by writing it again from its
    beginning, and a slot that was emptied by reading its context again.

    Args:
        draft: where draft tokens come from, the same that the backend was made with; None writes without.
    """

    def __init__(self, backend: Backend, draft: Draft | None = None) -> None:
        self.backend = backend
        self.draft = draft
        self._scheduler = Scheduler(backend)

    @property
    def free_slots(self) -> int:
        """How many sequences can be added."""
        return self._scheduler.free_slots

    def add(self, sequence: TextSequence) -> None:
        """Give the sequence a slot; the next steps read its prompt, then write.

        A prompt longer than `block_size` is cut to its end, as in nanoGPT.

        Raises:
            IndexError: no slot is free.
        """
        self._scheduler.add(sequence)

    def step(self, sequences: Collection[TextSequence]) -> Iterator[tuple[TextSequence, Chunk]]:
        """Write one or more characters of each sequence whose prompt is read; read on in the others' prompts.

        A sequence that ends leaves its slot. Prompts are read a little in each step, so that nobody's text stalls.

        Raises:
            FloatingPointError: a logit is not finite. After it, as after any failure of the backend, `reset`.
        """
        wanted = set(sequences)
        states = [state for sequence, state in self._scheduler.slot_states.items() if sequence in wanted]
        plan = self._scheduler.plan_step(states)
        results: list[StepResult] = []
        multi_step = self.backend.multi_step
        if multi_step is not None and plan.multi_step:
            results += self._multi_step(multi_step, plan.multi_step, plan.steps)
        if plan.single_step:
            results += self._single_step(plan.single_step)
        add_logprobs(results)
        for result in results:
            yield result.sequence, self._accept(result)

    def remove(self, sequence: TextSequence) -> None:
        """Free the sequence's slot, if it still has one."""
        self._scheduler.remove(sequence)

    def reset(self) -> None:
        """Remove all sequences and make the backend as new, after a step that failed."""
        self._scheduler.reset()
        self.backend.reset()

    def write(self, sequence: TextSequence) -> PythonGenerator[Chunk, None, None]:
        """The whole of one sequence, chunk by chunk."""
        self.add(sequence)
        try:
            while sequence in self._scheduler.slot_states:
                for _, chunk in self.step([sequence]):
                    yield chunk
        finally:
            self.remove(sequence)

    def _multi_step(self, multi_step: MultiStepDecode, states: list[SlotState], steps: int) -> list[StepResult]:
        """Several steps in one call of the backend.

        What a sequence draws beyond a stop string is dropped with its slot.
        """
        draft_tokens = 0
        context_length = 1
        if self.draft is not None:
            draft_tokens = max_draft_tokens(self.backend.speculation, len(states))
            if draft_tokens > 0:
                context_length = max(1, self.draft.max_context)
        inputs = []
        for state in states:
            sequence = state.sequence
            inputs.append(
                DecodeInput(
                    slot=state.slot,
                    context=sequence.context(context_length),
                    max_tokens=min(sequence.remaining, steps * (1 + draft_tokens)),
                    temperature=sequence.sampling.temperature,
                    gumbel_noise=sequence.gumbel_noise,
                    position=len(sequence.written),
                )
            )
        outputs = multi_step.decode(inputs, steps, speculate=draft_tokens > 0)
        return [StepResult(state, output.logits, output.ids) for state, output in zip(states, outputs, strict=True)]

    def _single_step(self, states: list[SlotState]) -> list[StepResult]:
        """One `forward`, in which prompts are read on too, and one draw from each row of logits."""
        plan = self._scheduler.plan_forward(states)
        draft_tokens = take_given_ids(self.backend, plan)
        if self.draft is not None:
            draft_tokens |= propose_draft_tokens(self.backend, self.draft, plan)
        runs = {slot: [*run, *draft_tokens.get(slot, ())] for slot, run in plan.runs.items()}
        logits = self.backend.forward(runs)
        results: list[StepResult] = []
        for state in states:
            if state.slot in runs and not state.unread:  # else its prompt is not read to its end
                tokens = draft_tokens.get(state.slot, [])
                rows = 1 + len(tokens)
                results.append(StepResult(state, logits[state.slot][-rows:], draft_tokens=tokens))
        if results and not np.isfinite(np.concatenate([result.logits for result in results])).all():
            raise FloatingPointError(NOT_FINITE)
        _choose_ids(results)
        return results

    def _accept(self, result: StepResult) -> Chunk:
        """Write what was chosen to the text, and drop rejected draft tokens from the slot."""
        state = result.state
        state.unread = result.ids[-1:]
        chunk = state.sequence.accept(result.ids, result.logprobs)
        if chunk.finish_reason is not None:
            self.remove(state.sequence)
        elif result.rejected:
            self.backend.truncate(state.slot, self.backend.length(state.slot) - result.rejected)
        return chunk


def _choose_ids(results: list[StepResult]) -> None:
    """Set each result's `ids`: those that are given, or those drawn up to the first that was not a draft token."""
    drawing: list[StepResult] = []
    for result in results:
        if result.sequence.given is None:
            drawing.append(result)
        else:
            result.ids = result.sequence.next_given(len(result.logits))
    if not drawing:
        return
    samplings: list[Sampling] = []
    for result in drawing:
        samplings += [result.sequence.sampling] * len(result.logits)
    logits = np.concatenate([result.logits for result in drawing])
    noise = np.concatenate([result.sequence.noise(len(result.logits)) for result in drawing])
    drawn = draw(logits, samplings, noise)
    first = 0
    for result in drawing:
        end = first + len(result.logits)
        ids = drawn[first:end]
        result.ids = ids[: count_accepted(result.draft_tokens, ids) + 1]
        first = end


def load_generator(
    checkpoint: Checkpoint,
    numerics: Numerics,
    slots: int,
    threads: int | None = None,
    compile: bool = False,
) -> Generator:
    """A generator for this checkpoint's weights; `threads` (`usable_cores` if None) is for `cpu-int8`.

    Modules are imported where they are needed: Numba takes a quarter of a second, PyTorch two seconds, Triton more.
    """
    _compile_sampling(checkpoint)
    if numerics.quantised:
        from model.backends.cpu.backend import Int8Backend  # noqa: PLC0415 - it also asks what this CPU can do

        backend = Int8Backend(checkpoint.config, checkpoint.weights, slots, threads, checkpoint.draft)
        return Generator(backend, checkpoint.draft)
    return Generator(*_torch_backend(checkpoint, numerics, slots, compile))


def _torch_backend(
    checkpoint: Checkpoint, numerics: Numerics, slots: int, compile: bool
) -> tuple[Backend, Draft | None]:
    """The CUDA backend where its kernels run, with the draft that it takes; else PyTorch's own operations."""
    import torch  # noqa: PLC0415

    network = checkpoint.network(numerics.torch_dtype)
    if numerics.device_type == "cuda" and torch.version.cuda and find_spec("triton"):  # PyTorch brings it for Linux
        from model.backends.cuda.backend import CudaBackend  # noqa: PLC0415

        return CudaBackend(network, numerics, slots, checkpoint.draft), checkpoint.draft
    from model.backends.eager import EagerBackend  # noqa: PLC0415

    return EagerBackend(network, numerics, slots, compile), None


def _compile_sampling(checkpoint: Checkpoint) -> None:
    """Compile now what the first text would otherwise wait for."""
    noise = gumbel_noise(0, 0, 0, 1, len(checkpoint.vocabulary))
    draw(noise.astype(np.float32), [Sampling()], noise)
    draw(noise.astype(np.float32), [Sampling(top_p=0.5, min_p=0.5)], noise)
    if checkpoint.draft is not None:
        checkpoint.draft.propose([], noise, 1.0)
