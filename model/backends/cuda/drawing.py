"""Drawing on a GPU, in Triton: several steps with draft tokens, without the host.

A sequence has `ROWS_PER_SEQUENCE` rows in each step: its last id, and draft tokens of what comes next. A draft
token is drawn with the noise that the network's own id will be drawn with, so they often agree; the ids up to and
including the first that differs are accepted. Knows nothing of how logits are computed.

Arguments in capitals are constants of compilation.
"""

import triton
import triton.language as tl

from model.backends.cuda.kernels import POSITION, SLOT, TOKEN, wait_for_previous_kernel

# Fields of a sequence, in `sequences` (SEQUENCE_FIELDS, FIELD_STRIDE) int64: field f of sequence s is at
# f · FIELD_STRIDE + s. Fields 0 to 2 are those of a row: its slot, and the position and the id that come next.
NUM_DRAWN = tl.constexpr(3)  # ids drawn so far in this call
LIMIT = tl.constexpr(4)  # ids to draw in this call
SEED = tl.constexpr(5)
SAMPLE = tl.constexpr(6)
DRAW_POSITION = tl.constexpr(7)  # of the next id among all that are drawn for the text, which decides its noise
TEMPERATURE = tl.constexpr(8)  # the bits of a float64
CONTEXT_KEY = tl.constexpr(9)  # `context_keys` of the last ids, as many as the table's longest context has
NUM_STEPS = tl.constexpr(10)  # steps so far in this call
SEQUENCE_FIELDS = 11

NOT_FINITE_ID = tl.constexpr(-1)  # the id that is drawn where a logit is not finite

# A key's hash: the bits from HASH_SHIFT on of its product with a large odd number.
HASH_MULTIPLIER = tl.constexpr(0x1E3779B97F4A7C15)
HASH_SHIFT = tl.constexpr(32)


@triton.jit
def _gumbel_noise(seed, sample, position, ids):
    """Return `noise.gumbel_noise` for some ids, float64."""
    zero = ids * 0
    a, b, c, d = tl.philox(seed, ids // 4, zero + position.to(tl.int32), zero + sample.to(tl.int32), zero)
    word = tl.where(ids % 4 == 0, a, tl.where(ids % 4 == 1, b, tl.where(ids % 4 == 2, c, d)))
    return -tl.log(-tl.log((word.to(tl.float64) + 0.5) / 4294967296.0))


@triton.jit
def draw(
    rows,
    sequences,
    logits,
    ids,
    drawn_logits,
    num_rows,
    FIELD_STRIDE: tl.constexpr,
    ROWS_PER_SEQUENCE: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY_LAUNCH: tl.constexpr,
):
    """Draw an id in each of `num_rows` rows, as `sampler.draw` does where no filter excludes an id.

    The id goes to `ids` (steps, num_rows), or `NOT_FINITE_ID` if a logit is not finite, and the row's `logits` (R,
    V) to `drawn_logits` (steps, num_rows, V). One program for each row, which looks at `BLOCK` ids at a time.
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    row = tl.program_id(0)
    if tl.load(rows + SLOT * FIELD_STRIDE + row) >= 0:
        sequence = sequences + row // ROWS_PER_SEQUENCE
        temperature = tl.load(sequence + TEMPERATURE * FIELD_STRIDE).to(tl.float64, bitcast=True)
        seed = tl.load(sequence + SEED * FIELD_STRIDE)
        sample = tl.load(sequence + SAMPLE * FIELD_STRIDE)
        draw_position = tl.load(sequence + DRAW_POSITION * FIELD_STRIDE) + row % ROWS_PER_SEQUENCE
        out = (tl.load(sequence + NUM_STEPS * FIELD_STRIDE) - 1) * num_rows + row
        highest = tl.full((), float("-inf"), tl.float32)
        num_not_finite = tl.full((), 0, tl.int32)
        for first in range(0, VOCABULARY, BLOCK):
            i = first + tl.arange(0, BLOCK)
            logit = tl.load(logits + row * VOCABULARY + i, mask=i < VOCABULARY, other=float("-inf"))
            tl.store(drawn_logits + out * VOCABULARY + i, logit, mask=i < VOCABULARY)
            highest = tl.maximum(highest, tl.max(logit, 0))
            num_not_finite += tl.sum(tl.where((i >= VOCABULARY) | (tl.abs(logit) < float("inf")), 0, 1), 0)
        best = tl.full((), float("-inf"), tl.float64)
        chosen = tl.full((), 0, tl.int32)
        for first in range(0, VOCABULARY, BLOCK):
            i = first + tl.arange(0, BLOCK)
            logit = tl.load(logits + row * VOCABULARY + i, mask=i < VOCABULARY, other=float("-inf"))
            score = logit.to(tl.float64) - highest.to(tl.float64)
            if temperature > 0:
                score = score / temperature + _gumbel_noise(seed, sample, draw_position, i)
            score = tl.where(i < VOCABULARY, score, float("-inf"))
            top, index = tl.max(score, 0, return_indices=True, return_indices_tie_break_left=True)
            chosen = tl.where(top > best, first + index, chosen)
            best = tl.maximum(top, best)
        tl.store(ids + out, tl.where(num_not_finite > 0, NOT_FINITE_ID, chosen))


@triton.jit
def _find_context(
    keys,
    table_rows,
    powers,
    context_key,
    TABLE_SIZE: tl.constexpr,
    PROBES: tl.constexpr,
    CONTEXTS: tl.constexpr,
):
    """Return the row of the longest end of a context that is in the hash table; the empty context always is.

    All lengths and all probes are looked up at once. The last n ids' key is the whole one modulo the base to the
    power of n.
    """
    length = tl.arange(0, CONTEXTS)
    wanted = context_key % tl.load(powers + length)
    hashed = (wanted * HASH_MULTIPLIER) >> HASH_SHIFT
    places = (hashed[:, None] + tl.arange(0, PROBES)[None, :]) & (TABLE_SIZE - 1)
    row = tl.max(tl.where(tl.load(keys + places) == wanted[:, None], tl.load(table_rows + places), -1), 1)
    longest = tl.max(tl.where(row >= 0, length, 0), 0)
    return tl.sum(tl.where(length == longest, row, 0), 0)


@triton.jit
def _propose(
    surprisal,
    row,
    seed,
    sample,
    draw_position,
    temperature,
    NATS_PER_UNIT: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the draft token that `Draft.propose` finds by a row of `surprisal` (N, V)."""
    i = tl.arange(0, BLOCK)
    units = tl.load(surprisal + row * VOCABULARY + i, mask=i < VOCABULARY, other=0).to(tl.float64)
    score = units * (-NATS_PER_UNIT)
    if temperature > 0:
        score = score / temperature + _gumbel_noise(seed, sample, draw_position, i)
    return tl.argmax(tl.where(i < VOCABULARY, score, float("-inf")), 0)


@triton.jit
def _write_row(row, FIELD_STRIDE: tl.constexpr, wanted, slot, position, token):
    """Write a row's fields; where it is not `wanted`, as padding."""
    tl.store(row + SLOT * FIELD_STRIDE, tl.where(wanted, slot, -1))
    tl.store(row + POSITION * FIELD_STRIDE, position)
    tl.store(row + TOKEN * FIELD_STRIDE, token)


@triton.jit
def accept_and_propose(
    rows,
    sequences,
    ids,
    counts,
    keys,
    table_rows,
    surprisal,
    powers,
    num_rows,
    FIELD_STRIDE: tl.constexpr,
    ROWS_PER_SEQUENCE: tl.constexpr,
    TABLE_SIZE: tl.constexpr,
    PROBES: tl.constexpr,
    CONTEXTS: tl.constexpr,
    NUM_KEYS: tl.constexpr,
    NATS_PER_UNIT: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY_LAUNCH: tl.constexpr,
):
    """Accept what was drawn in a sequence's rows, up to the first id that is no draft token; write its next rows.

    How many ids were accepted goes to `counts` (steps, num_rows). One program for each sequence.

    `keys` and `table_rows` (TABLE_SIZE,) are a hash table: contexts, fewer than `PROBES` places behind their hash,
    and their rows in `surprisal` (N, V). `powers` (CONTEXTS,) are those of the base of keys, which are below
    `NUM_KEYS`.
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    number = tl.program_id(0)
    sequence = sequences + number
    first_row = rows + number * ROWS_PER_SEQUENCE
    limit = tl.load(sequence + LIMIT * FIELD_STRIDE)
    steps = tl.load(sequence + NUM_STEPS * FIELD_STRIDE)
    num_drawn = tl.load(sequence + NUM_DRAWN * FIELD_STRIDE)
    draw_position = tl.load(sequence + DRAW_POSITION * FIELD_STRIDE)
    position = tl.load(sequence + POSITION * FIELD_STRIDE)
    token = tl.load(sequence + TOKEN * FIELD_STRIDE)
    context_key = tl.load(sequence + CONTEXT_KEY * FIELD_STRIDE)
    if steps > 0:
        i = tl.arange(0, ROWS_PER_SEQUENCE)
        step = (steps - 1) * num_rows
        drawn = tl.load(ids + step + number * ROWS_PER_SEQUENCE + i)
        # Row i's id is compared with the draft token of the row after it, where that row was computed.
        has_next = i + 1 < tl.minimum(limit - num_drawn, ROWS_PER_SEQUENCE)
        draft_token = tl.load(first_row + TOKEN * FIELD_STRIDE + i + 1, mask=has_next, other=0)
        accepted = tl.min(tl.where(has_next & (drawn == draft_token), ROWS_PER_SEQUENCE, i), 0) + 1
        accepted = tl.where(num_drawn < limit, accepted, 0)
        tl.store(counts + step + number, accepted)
        last = tl.maximum(tl.sum(tl.where(i + 1 == accepted, drawn, 0), 0), 0)  # 0 for NOT_FINITE_ID
        token = tl.where(accepted > 0, last, token)
        for j in tl.static_range(ROWS_PER_SEQUENCE if ROWS_PER_SEQUENCE > 1 else 0):
            appended = tl.load(ids + step + number * ROWS_PER_SEQUENCE + j)
            next_key = (context_key * (VOCABULARY + 1) + appended + 1) % NUM_KEYS
            context_key = tl.where(j < accepted, next_key, context_key)
        num_drawn = num_drawn + accepted
        draw_position = draw_position + accepted
        position = position + accepted
    tl.debug_barrier()  # all threads have read what is written from here on
    tl.store(sequence + NUM_DRAWN * FIELD_STRIDE, num_drawn)
    tl.store(sequence + DRAW_POSITION * FIELD_STRIDE, draw_position)
    tl.store(sequence + POSITION * FIELD_STRIDE, position)
    tl.store(sequence + TOKEN * FIELD_STRIDE, token)
    tl.store(sequence + CONTEXT_KEY * FIELD_STRIDE, context_key)
    tl.store(sequence + NUM_STEPS * FIELD_STRIDE, steps + 1)
    slot = tl.load(sequence + SLOT * FIELD_STRIDE)
    seed = tl.load(sequence + SEED * FIELD_STRIDE)
    sample = tl.load(sequence + SAMPLE * FIELD_STRIDE)
    temperature = tl.load(sequence + TEMPERATURE * FIELD_STRIDE).to(tl.float64, bitcast=True)
    left = limit - num_drawn
    _write_row(first_row, FIELD_STRIDE, left > 0, slot, position, token)
    for j in range(1, ROWS_PER_SEQUENCE):
        table_row = _find_context(keys, table_rows, powers, context_key, TABLE_SIZE, PROBES, CONTEXTS)
        proposed = _propose(
            surprisal,
            table_row,
            seed,
            sample,
            draw_position + j - 1,
            temperature,
            NATS_PER_UNIT,
            VOCABULARY,
            BLOCK,
        )
        _write_row(first_row + j, FIELD_STRIDE, j < left, slot, position + j, proposed.to(tl.int64))
        context_key = (context_key * (VOCABULARY + 1) + proposed + 1) % NUM_KEYS
