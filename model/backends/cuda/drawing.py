"""Drawing on a GPU, in Triton: several steps without the host, with guesses.

A stream draws in `WIDTH` rows of each step: after its last id, and after guesses of what comes next. Drawn with the
guesses' own noise, what the network says is often the same; up to the first that is not, it stands.
"""

import triton
import triton.language as tl

from model.backends.cuda.kernels import POSITION, SLOT, TOKEN, begin

# What `streams` (11, STRIDE), int64, has of each stream besides its slot, the position and the id to read next:
COUNT = tl.constexpr(3)  # ids drawn so far
LIMIT = tl.constexpr(4)  # ids to draw
SEED = tl.constexpr(5)
SAMPLE = tl.constexpr(6)
PLACE = tl.constexpr(7)  # of the next id among all that are drawn for the text
TEMPERATURE = tl.constexpr(8)  # the bits of a float64
KEY = tl.constexpr(9)  # `draft.context_keys` of the last ids, as many as the longest context in the table has
STEP = tl.constexpr(10)  # steps so far
STREAM_FIELDS = 11

NOT_FINITE = tl.constexpr(-1)  # the id drawn from logits that are not
HASH = tl.constexpr(0x1E3779B97F4A7C15)
HASH_SHIFT = tl.constexpr(32)


@triton.jit
def _gumbel_noise(seed, sample, place, ids):
    """`noise.gumbel_noise` for some ids, float64."""
    zero = ids * 0
    a, b, c, d = tl.philox(seed, ids // 4, zero + place.to(tl.int32), zero + sample.to(tl.int32), zero)
    word = tl.where(ids % 4 == 0, a, tl.where(ids % 4 == 1, b, tl.where(ids % 4 == 2, c, d)))
    return -tl.log(-tl.log((word.to(tl.float64) + 0.5) / 4294967296.0))


@triton.jit
def draw(
    rows,
    streams,
    logits,
    ids,
    told,
    size,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Draw an id in each of `size` rows as `sampling.draw` does where every character can come.

    It goes to `ids` (steps, size), `NOT_FINITE` if a logit is not; its logits to `told` (steps, size, V).
    """
    begin(EARLY)
    row = tl.program_id(0)
    if tl.load(rows + SLOT * STRIDE + row) >= 0:
        streams += row // WIDTH
        temperature = tl.load(streams + TEMPERATURE * STRIDE).to(tl.float64, bitcast=True)
        seed, sample = tl.load(streams + SEED * STRIDE), tl.load(streams + SAMPLE * STRIDE)
        place = tl.load(streams + PLACE * STRIDE) + row % WIDTH
        answer = (tl.load(streams + STEP * STRIDE) - 1) * size + row
        highest, wrong = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
        for first in range(0, VOCABULARY, BLOCK):
            i = first + tl.arange(0, BLOCK)
            logit = tl.load(logits + row * VOCABULARY + i, mask=i < VOCABULARY, other=float("-inf"))
            tl.store(told + answer * VOCABULARY + i, logit, mask=i < VOCABULARY)
            highest = tl.maximum(highest, tl.max(logit, 0))
            wrong += tl.sum(tl.where((i >= VOCABULARY) | (tl.abs(logit) < float("inf")), 0, 1), 0)
        best, chosen = tl.full((), float("-inf"), tl.float64), tl.full((), 0, tl.int32)
        for first in range(0, VOCABULARY, BLOCK):
            i = first + tl.arange(0, BLOCK)
            logit = tl.load(logits + row * VOCABULARY + i, mask=i < VOCABULARY, other=float("-inf"))
            score = logit.to(tl.float64) - highest.to(tl.float64)
            if temperature > 0:
                score = score / temperature + _gumbel_noise(seed, sample, place, i)
            score = tl.where(i < VOCABULARY, score, float("-inf"))
            top, index = tl.max(score, 0, return_indices=True, return_indices_tie_break_left=True)
            chosen = tl.where(top > best, first + index, chosen)
            best = tl.maximum(top, best)
        tl.store(ids + answer, tl.where(wrong > 0, NOT_FINITE, chosen))


@triton.jit
def _find(keys, places, powers, key, SIZE: tl.constexpr, PROBES: tl.constexpr, CONTEXTS: tl.constexpr):
    """Where the longest end of a context is that the table has; the empty one is."""
    length = tl.arange(0, CONTEXTS)
    wanted = key % tl.load(powers + length)
    start = (wanted * HASH) >> HASH_SHIFT
    found = (start[:, None] + tl.arange(0, PROBES)[None, :]) & (SIZE - 1)
    row = tl.max(tl.where(tl.load(keys + found) == wanted[:, None], tl.load(places + found), -1), 1)
    longest = tl.max(tl.where(row >= 0, length, 0), 0)
    return tl.sum(tl.where(length == longest, row, 0), 0)


@triton.jit
def _guess(
    surprise,
    row,
    seed,
    sample,
    place,
    temperature,
    NATS: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The id that `Draft.guess` guesses by a row of the table."""
    i = tl.arange(0, BLOCK)
    score = tl.load(surprise + row * VOCABULARY + i, mask=i < VOCABULARY, other=0).to(tl.float64) * (-NATS)
    if temperature > 0:
        score = score / temperature + _gumbel_noise(seed, sample, place, i)
    return tl.argmax(tl.where(i < VOCABULARY, score, float("-inf")), 0)


@triton.jit
def _fill(row, STRIDE: tl.constexpr, wanted, slot, position, token):
    tl.store(row + SLOT * STRIDE, tl.where(wanted, slot, -1))
    tl.store(row + POSITION * STRIDE, position)
    tl.store(row + TOKEN * STRIDE, token)


@triton.jit
def advance(
    rows,
    streams,
    ids,
    counts,
    keys,
    places,
    surprise,
    powers,
    size,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PROBES: tl.constexpr,
    CONTEXTS: tl.constexpr,
    KEYS: tl.constexpr,
    NATS: tl.constexpr,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Take what was drawn in a stream's rows, up to the first id that was not guessed; fill them for the next step.

    How many ids were taken goes to `counts` (steps, size). `keys` and `places` (SIZE,) are a hash table: contexts,
    less than `PROBES` places behind their hash, and their rows in `surprise` (N, V). `powers` (CONTEXTS,) are those
    of the base of keys, which are below `KEYS`.
    """
    begin(EARLY)
    stream = tl.program_id(0)
    streams, rows = streams + stream, rows + stream * WIDTH
    limit, step = tl.load(streams + LIMIT * STRIDE), tl.load(streams + STEP * STRIDE)
    count, place = tl.load(streams + COUNT * STRIDE), tl.load(streams + PLACE * STRIDE)
    position, token = tl.load(streams + POSITION * STRIDE), tl.load(streams + TOKEN * STRIDE)
    key = tl.load(streams + KEY * STRIDE)
    if step > 0:
        i, answer = tl.arange(0, WIDTH), (step - 1) * size
        drawn = tl.load(ids + answer + stream * WIDTH + i)
        going = i + 1 < tl.minimum(limit - count, WIDTH)
        guess = tl.load(rows + TOKEN * STRIDE + i + 1, mask=going, other=0)
        taken = tl.min(tl.where(going & (drawn == guess), WIDTH, i), 0) + 1
        taken = tl.where(count < limit, taken, 0)
        tl.store(counts + answer + stream, taken)
        token = tl.where(taken > 0, tl.maximum(tl.sum(tl.where(i + 1 == taken, drawn, 0), 0), 0), token)
        for j in tl.static_range(WIDTH if WIDTH > 1 else 0):
            after = (key * (VOCABULARY + 1) + tl.load(ids + answer + stream * WIDTH + j) + 1) % KEYS
            key = tl.where(j < taken, after, key)
        count, place, position = count + taken, place + taken, position + taken
    tl.debug_barrier()  # all threads have read what is written from here on
    tl.store(streams + COUNT * STRIDE, count)
    tl.store(streams + PLACE * STRIDE, place)
    tl.store(streams + POSITION * STRIDE, position)
    tl.store(streams + TOKEN * STRIDE, token)
    tl.store(streams + KEY * STRIDE, key)
    tl.store(streams + STEP * STRIDE, step + 1)
    slot, seed = tl.load(streams + SLOT * STRIDE), tl.load(streams + SEED * STRIDE)
    sample = tl.load(streams + SAMPLE * STRIDE)
    temperature = tl.load(streams + TEMPERATURE * STRIDE).to(tl.float64, bitcast=True)
    left = limit - count
    _fill(rows, STRIDE, left > 0, slot, position, token)
    for j in range(1, WIDTH):
        row = _find(keys, places, powers, key, SIZE, PROBES, CONTEXTS)
        guess = _guess(surprise, row, seed, sample, place + j - 1, temperature, NATS, VOCABULARY, BLOCK)
        _fill(rows + j, STRIDE, j < left, slot, position + j, guess.to(tl.int64))
        key = (key * (VOCABULARY + 1) + guess + 1) % KEYS
