/* The int8 network for WebAssembly with 128-bit SIMD. static/engine/reference.js is its readable form; both compute,
 * bit for bit, what model/backends/cpu does, where it is said why it is computed so.
 *
 * What keeps it the same everywhere: products are sums of whole numbers, exact in any order; every other number is a
 * float32 that comes from one +, -, *, / or square root at a time, in an order that is written down. No relaxed SIMD,
 * no fused multiply-add, no function of a library. Rotary angles come from JavaScript.
 *
 * One network over one text, in global variables. Memory is taken once, at the start, and never given back.
 */

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) name
#define INLINE static inline __attribute__((always_inline))
/* Keeps a pointer as it is: LLVM would count from others' ends, for which WebAssembly's loads have no offsets. */
#define KEEP(pointer) __asm__ volatile("" : "+r"(pointer))

enum {
    MAX_ROWS = 8,          /* ids that one call reads */
    NUM_PARTIAL_SUMS = 64, /* of a sum of floats */
    MAX_SUMMANDS = 512,    /* products of two bytes by one, whose sum fits int32 */
    ALIGNMENT = 16,
    SLACK = 64,            /* bytes beyond the last array that a vector may read */
    PAGE = 1 << 16,
};

static const float INT8_LIMIT = 127.0f;
static const float INT16_LIMIT = 127.0f * 256.0f;
static const float TINY = 1e-30f;
static const float ROUND = 1.5f * 8388608.0f; /* added and subtracted again, it rounds to a whole number */
static const float MASKED_SCORE = -1e30f;

/* A product of each layer: matrices of whole numbers, packed, and scales and biases of the outputs. */
typedef struct {
    int8_t *blocks; /* (L, outputs/4, inputs/8, 4, 8) */
    const float *scales; /* (L, 2, outputs) */
    int inputs, outputs;
} Product;

/* The shape of the network. */
static int layers, heads, head_size, width, window, vocabulary, ring_size;
static int padded_width, padded_mlp_width, padded_head; /* rounded up to vectors, filled with zeros */
static int rotary, qk_norm, rmsnorm, relu2;
static float logit_scale, norm_epsilon, qk_epsilon;

/* Its weights. */
static const float *tokens, *positions, *norms, *head_scales;
static int8_t *head_blocks;
static Product qkv_product, attention_output, mlp_expand, mlp_output;

/* Keys and values: position p is at ring index p mod ring_size. */
static int8_t *keys;   /* (L, H, R/4, D/8, 4, 8): as a product's blocks */
static int8_t *values; /* (L, H, R/2, D, 2) */
static float *key_scales, *value_scales; /* (L, H, R) */

/* Scratch memory. */
static int32_t *ids;    /* (rows,) */
static float *angles;   /* (rows, 2, D/2): cosines and sines */
static float *logits;   /* (rows, V) */
static float *residual, *normed, *attended, *update; /* (rows, C) */
static float *qkv;      /* (rows, 3·C) */
static float *hidden;   /* (rows, 4·C) */
static int16_t *whole;  /* (rows, 4·C): the left operand of a product */
static float *row_scales; /* (rows,) */
static int32_t *sums;   /* (rows, 4·C or V) */
static float *scores, *tail; /* (R,), (4·C,) */
static int16_t *two_bytes; /* (rows, 2, max(R, C)) */

static uintptr_t next_free, end_of_memory;
extern unsigned char __heap_base;

/* Returns zeroed memory; 0 if there is none. */
static void *take(uint64_t bytes) {
    if (next_free == 0) {
        next_free = ((uintptr_t)&__heap_base + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        end_of_memory = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
    }
    uintptr_t start = next_free;
    if (bytes > UINT32_MAX) return 0;
    uint64_t end = start + bytes + SLACK;
    if (end > end_of_memory) {
        uint64_t pages = (end - end_of_memory + PAGE - 1) / PAGE;
        if (pages > 65536 || __builtin_wasm_memory_grow(0, (uintptr_t)pages) == (uintptr_t)-1) return 0;
        end_of_memory += (uintptr_t)pages * PAGE;
    }
    next_free = start + (uintptr_t)((bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return (void *)start;
}

void *EXPORT(allocate)(uint32_t bytes) { return take(bytes); }

INLINE int round_up(int size, int multiple) { return (size + multiple - 1) / multiple * multiple; }
INLINE int smaller(int a, int b) { return a < b ? a : b; }
INLINE int larger(int a, int b) { return a > b ? a : b; }

void EXPORT(configure_shape)(int n_layer, int n_head, int n_embd, int block_size, int vocab_size, int ring) {
    layers = n_layer;
    heads = n_head;
    width = n_embd;
    head_size = n_embd / n_head;
    window = block_size;
    vocabulary = vocab_size;
    ring_size = ring;
    padded_width = round_up(width, 8);
    padded_mlp_width = round_up(4 * width, 8);
    padded_head = round_up(head_size, 16);
}

void EXPORT(configure_variants)(
    int has_rotary, int has_qk_norm, int has_rmsnorm, int has_relu2, float scale, float epsilon, float epsilon_of_qk) {
    rotary = has_rotary;
    qk_norm = has_qk_norm;
    rmsnorm = has_rmsnorm;
    relu2 = has_relu2;
    logit_scale = scale;
    norm_epsilon = epsilon;
    qk_epsilon = epsilon_of_qk;
}

void EXPORT(set_embeddings)(const float *of_tokens, const float *of_positions, const float *of_norms) {
    tokens = of_tokens;
    positions = of_positions;
    norms = of_norms;
}

/* Takes the memory that `forward` needs; 0 if there is not enough. */
int EXPORT(prepare)(void) {
    int longest = larger(round_up(larger(4 * width, vocabulary), 4), ring_size);
    uint64_t cached = (uint64_t)layers * heads * ring_size;
    int ok = 1;
#define TAKE(pointer, count) ok &= (pointer = take((uint64_t)(count) * sizeof *pointer)) != 0
    TAKE(keys, cached * padded_head);
    TAKE(values, cached * padded_head);
    TAKE(key_scales, cached);
    TAKE(value_scales, cached);
    TAKE(ids, MAX_ROWS);
    TAKE(angles, MAX_ROWS * head_size);
    TAKE(logits, MAX_ROWS * vocabulary);
    TAKE(residual, MAX_ROWS * width);
    TAKE(normed, MAX_ROWS * width);
    TAKE(attended, MAX_ROWS * width);
    TAKE(update, MAX_ROWS * width);
    TAKE(qkv, MAX_ROWS * 3 * width);
    TAKE(hidden, MAX_ROWS * 4 * width);
    TAKE(whole, MAX_ROWS * larger(padded_mlp_width, padded_head));
    TAKE(row_scales, MAX_ROWS);
    TAKE(sums, MAX_ROWS * longest);
    TAKE(scores, ring_size);
    TAKE(tail, 4 * width);
    TAKE(two_bytes, MAX_ROWS * 2 * larger(ring_size, padded_width));
#undef TAKE
    return ok;
}

int32_t *EXPORT(ids_address)(void) { return ids; }
float *EXPORT(angles_address)(void) { return angles; }
float *EXPORT(logits_address)(void) { return logits; }

INLINE float float_of(int32_t bits) { return (union { int32_t bits; float value; }){bits}.value; }
INLINE int32_t bits_of(float value) { return (union { float value; int32_t bits; }){value}.bits; }

/* The largest magnitude. As whole numbers, the bits of floats without their sign are in the order of magnitudes, and
 * the compiler makes vectors of them. */
INLINE float max_magnitude(const float *values, int count) {
    int32_t largest = 0;
    for (int i = 0; i < count; i++) {
        int32_t bits = bits_of(values[i]) & 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return float_of(largest);
}

INLINE float max_value(const float *values, int count) {
    int32_t highest = INT32_MIN;
    for (int i = 0; i < count; i++) {
        int32_t bits = bits_of(values[i]);
        bits ^= (bits >> 31) & 0x7fffffff;
        highest = bits > highest ? bits : highest;
    }
    return float_of(highest ^ ((highest >> 31) & 0x7fffffff));
}

/* The sum of the values, or of their squares, in partial sums side by side that are then added one after another. */
INLINE float sum(const float *values, int count, int squared) {
    float partial_sums[NUM_PARTIAL_SUMS] = {0};
    int start = 0;
    for (; start + NUM_PARTIAL_SUMS <= count; start += NUM_PARTIAL_SUMS) {
        for (int i = 0; i < NUM_PARTIAL_SUMS; i++) {
            float value = values[start + i];
            partial_sums[i] += squared ? value * value : value;
        }
    }
    for (int i = start; i < count; i++) {
        float value = values[i];
        partial_sums[i - start] += squared ? value * value : value;
    }
    float total = 0;
    for (int i = 0; i < NUM_PARTIAL_SUMS; i++) total += partial_sums[i];
    return total;
}

static float sum_values(const float *values, int count) { return sum(values, count, 0); }
static float sum_squares(const float *values, int count) { return sum(values, count, 1); }

/* Writes the values as whole multiples, from -127 to 127, of the scale that is returned. */
static float quantise(const float *values, int count, int16_t *out) {
    float largest = max_magnitude(values, count);
    float factor = largest > TINY ? INT8_LIMIT / largest : 0.0f;
    for (int i = 0; i < count; i++) out[i] = (int16_t)(int32_t)((values[i] * factor + ROUND) - ROUND);
    return largest / INT8_LIMIT;
}

/* Writes the values as whole multiples, from -127 · 256 to 127 · 256, of the scale that is returned. If a sum of as
 * many products may not fit int32, they are written as two rows of bytes: high · 256 + low. */
static float quantise_two_bytes(const float *values, int count, int16_t *out, int stride) {
    float largest = max_magnitude(values, count);
    float factor = largest > TINY ? INT16_LIMIT / largest : 0.0f;
    for (int i = 0; i < count; i++) out[i] = (int16_t)(int32_t)((values[i] * factor + ROUND) - ROUND);
    if (count > MAX_SUMMANDS) {
        for (int i = 0; i < count; i++) {
            int32_t both = out[i];
            int32_t high = (both + 128) >> 8;
            out[i] = (int16_t)high;
            out[stride + i] = (int16_t)(both - high * 256);
        }
    }
    return largest / INT16_LIMIT;
}

/* A float from sums of products with what `quantise_two_bytes` wrote. With few summands float32 holds the sums of high
 * and of low bytes exactly, so that adding them rounds to what their sum as a whole number is rounded to. */
INLINE float from_two_bytes(int count, const int32_t *sum, int stride) {
    return count > MAX_SUMMANDS ? (float)sum[0] * 256.0f + (float)sum[stride] : (float)sum[0];
}

/* Replaces each value, at most 0, by its exponential. */
static void exponentiate(float *values, int count) {
    for (int i = 0; i < count; i++) {
        float x = values[i] > -60.0f ? values[i] : -60.0f;
        float n = (x * (float)1.4426950408889634 + ROUND) - ROUND;
        float r = (x - n * (float)0.693359375) - n * (float)-2.12194440e-4;
        float p = (float)(1.0 / 720);
        p = p * r + (float)(1.0 / 120);
        p = p * r + (float)(1.0 / 24);
        p = p * r + (float)(1.0 / 6);
        p = p * r + 0.5f;
        p = p * r + 1.0f;
        float power = float_of(((int32_t)n + 127) << 23);
        values[i] = x > -60.0f ? (p * r + 1.0f) * power : 0.0f;
    }
}

/* The sums of four vectors' numbers each. */
INLINE v128_t add_across(v128_t a, v128_t b, v128_t c, v128_t d) {
    v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5), wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}

/* Multiplies some rows of x by a block; sums stay in registers. `rows` is a constant where it is called.
 *
 * One round of the loop takes eight numbers of each row, and is not unrolled: V8 moves all loads of a round before its
 * arithmetic, and with those of two rounds the registers are too few. That took twice as long. */
INLINE void multiply_block(
    int rows, const int16_t *x, int x_stride, const int8_t *block, int count, int32_t *out, int out_stride) {
    v128_t totals[MAX_ROWS][4];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < 4; i++) totals[row][i] = wasm_i32x4_splat(0);
    const int16_t *last = x + count;
    while (x < last) {
        v128_t of_rows[MAX_ROWS];
        for (int row = 0; row < rows; row++) of_rows[row] = wasm_v128_load(x + row * x_stride);
        for (int i = 0; i < 4; i++) {
            v128_t eight = wasm_i16x8_load8x8(block + 8 * i);
            for (int row = 0; row < rows; row++)
                totals[row][i] = wasm_i32x4_add(totals[row][i], wasm_i32x4_dot_i16x8(of_rows[row], eight));
        }
        x += 8;
        block += 32;
        KEEP(x);
        KEEP(block);
    }
    for (int row = 0; row < rows; row++)
        wasm_v128_store(
            out + row * out_stride, add_across(totals[row][0], totals[row][1], totals[row][2], totals[row][3]));
}

/* Multiplies rows of x (rows, count) by blocks, as many rows at a time as registers hold sums of. */
static void multiply(
    const int16_t *x, int rows, int x_stride, const int8_t *blocks, int outputs, int count, int32_t *out,
    int out_stride) {
    for (int output = 0; output < outputs; output += 4) {
        const int8_t *block = blocks + output * count;
        int row = 0;
        for (; row + 2 <= rows; row += 2)
            multiply_block(2, x + row * x_stride, x_stride, block, count, out + row * out_stride + output, out_stride);
        if (row < rows)
            multiply_block(1, x + row * x_stride, x_stride, block, count, out + row * out_stride + output, out_stride);
    }
}

/* Writes a matrix (outputs, inputs) as blocks: of four outputs each, eight numbers of the first, then of the second,
 * and so on, in the order in which they are multiplied. So memory is read from its beginning to its end, which is
 * several times as fast. Outputs and inputs are filled up with zeros, which are there already. */
static void pack(const int8_t *matrix, int outputs, int inputs, int8_t *blocks) {
    int count = round_up(inputs, 8);
    for (int output = 0; output < outputs; output++) {
        int8_t *block = blocks + output / 4 * 4 * count + output % 4 * 8;
        for (int i = 0; i < inputs; i++) block[i / 8 * 32 + i % 8] = matrix[output * inputs + i];
    }
}

/* Takes over the matrix that gives logits; 0 if there is not enough memory. */
int EXPORT(set_head)(const int8_t *matrix, const float *scales) {
    head_scales = scales;
    head_blocks = take((uint64_t)round_up(vocabulary, 4) * padded_width);
    if (head_blocks != 0) pack(matrix, vocabulary, width, head_blocks);
    return head_blocks != 0;
}

/* Takes over the matrices of one of the four products of a layer, by its place in a layer; 0 if there is not enough
 * memory. */
int EXPORT(set_product)(int place, const int8_t *matrices, const float *scales) {
    Product *products[] = {&qkv_product, &attention_output, &mlp_expand, &mlp_output};
    int all_inputs[] = {width, width, width, 4 * width};
    int all_outputs[] = {3 * width, width, 4 * width, width};
    int inputs = all_inputs[place];
    int outputs = all_outputs[place];
    uint64_t of_layer = (uint64_t)round_up(outputs, 4) * round_up(inputs, 8);
    int8_t *blocks = take(layers * of_layer);
    if (blocks == 0) return 0;
    for (int layer = 0; layer < layers; layer++)
        pack(matrices + (uint32_t)layer * outputs * inputs, outputs, inputs, blocks + layer * of_layer);
    *products[place] = (Product){blocks, scales, inputs, outputs};
    return 1;
}

/* Quantises rows of `values` (rows, inputs), multiplies them by a layer's matrix, and scales the sums. */
static void linear(const Product *product, int layer, const float *input, int rows, float *out) {
    int inputs = product->inputs;
    int outputs = product->outputs;
    int stride = round_up(inputs, 8);
    for (int row = 0; row < rows; row++) {
        for (int i = inputs; i < stride; i++) whole[row * stride + i] = 0;
        row_scales[row] = quantise(input + row * inputs, inputs, whole + row * stride);
    }
    int padded_outputs = round_up(outputs, 4);
    const int8_t *blocks = product->blocks + (uint32_t)layer * padded_outputs * stride;
    multiply(whole, rows, stride, blocks, outputs, stride, sums, padded_outputs);
    const float *scales = product->scales + 2 * layer * outputs;
    const float *biases = scales + outputs;
    for (int row = 0; row < rows; row++) {
        float scale = row_scales[row];
        for (int i = 0; i < outputs; i++)
            out[row * outputs + i] = (float)sums[row * padded_outputs + i] * (scale * scales[i]) + biases[i];
    }
}

/* Writes RMSNorm or LayerNorm of the residual stream to `normed`. */
static void normalise(int index, int rows) {
    const float *weight = norms + 2 * index * width;
    const float *bias = weight + width;
    for (int row = 0; row < rows; row++) {
        const float *x = residual + row * width;
        float *y = normed + row * width;
        float mean = rmsnorm ? 0.0f : sum_values(x, width) / (float)width;
        for (int i = 0; i < width; i++) y[i] = x[i] - mean;
        float variance = sum_squares(y, width) / (float)width;
        float factor = 1.0f / __builtin_sqrtf(variance + norm_epsilon);
        for (int i = 0; i < width; i++) y[i] = y[i] * factor * weight[i] + bias[i];
    }
}

/* Rotates and normalises one head's query or key. */
static void rotate_and_normalise(float *one, const float *cosines) {
    int half = head_size / 2;
    const float *sines = cosines + half;
    if (rotary) {
        for (int i = 0; i < half; i++) {
            float a = one[i];
            float b = one[half + i];
            one[i] = a * cosines[i] - b * sines[i];
            one[half + i] = b * cosines[i] + a * sines[i];
        }
    }
    if (qk_norm) {
        float mean_square = sum_squares(one, head_size) / (float)head_size;
        float factor = 1.0f / __builtin_sqrtf(mean_square + qk_epsilon);
        for (int i = 0; i < head_size; i++) one[i] *= factor;
    }
}

/* Writes a row's keys and values of a layer into the ring; its queries and keys are rotated and normalised. */
static void write_kv(int layer, int row, int position) {
    int ring_index = position % ring_size;
    float *of_row = qkv + row * 3 * width;
    for (int h = 0; h < heads; h++) {
        float *query = of_row + h * head_size;
        float *key = query + width;
        float *value = key + width;
        rotate_and_normalise(query, angles + row * head_size);
        rotate_and_normalise(key, angles + row * head_size);
        uint32_t entry = (uint32_t)(layer * heads + h) * ring_size + ring_index;
        key_scales[entry] = quantise(key, head_size, whole);
        int8_t *block = keys + entry / 4 * 4 * padded_head + entry % 4 * 8;
        for (int i = 0; i < head_size; i++) block[i / 8 * 32 + i % 8] = (int8_t)whole[i];
        value_scales[entry] = quantise(value, head_size, whole);
        int8_t *pair = values + entry / 2 * 2 * padded_head + ring_index % 2;
        for (int i = 0; i < head_size; i++) pair[2 * i] = (int8_t)whole[i];
    }
}

/* Multiplies one or two rows of softmax weights by 16 columns of values. `rows` is a constant where it is called. */
INLINE void multiply_values(int rows, const int16_t *weights, int stride, const int8_t *stored, int pairs, int32_t *out) {
    v128_t totals[2][4];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < 4; i++) totals[row][i] = wasm_i32x4_splat(0);
    const int16_t *last = weights + 2 * pairs;
    while (weights < last) {
        v128_t of_rows[2];
        for (int row = 0; row < rows; row++) of_rows[row] = wasm_v128_load32_splat(weights + row * stride);
        for (int i = 0; i < 4; i++) {
            v128_t four = wasm_i16x8_load8x8(stored + 8 * i);
            for (int row = 0; row < rows; row++)
                totals[row][i] = wasm_i32x4_add(totals[row][i], wasm_i32x4_dot_i16x8(four, of_rows[row]));
        }
        weights += 2;
        stored += 2 * padded_head;
        KEEP(weights);
        KEEP(stored);
    }
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < 4; i++) wasm_v128_store(out + row * padded_head + 4 * i, totals[row][i]);
}

/* Multiplies rows of softmax weights (rows, entries) by a head's values; writes the sums (rows, D). */
static void weigh_values(const int16_t *weights, int rows, int stride, const int8_t *of_head, int entries, int32_t *out) {
    for (int first = 0; first < padded_head; first += 16) {
        const int8_t *stored = of_head + 2 * first;
        int row = 0;
        for (; row + 2 <= rows; row += 2)
            multiply_values(2, weights + row * stride, stride, stored, entries / 2, out + row * padded_head + first);
        if (row < rows)
            multiply_values(1, weights + row * stride, stride, stored, entries / 2, out + row * padded_head + first);
    }
}

/* Replaces sums of queries by keys by the softmax of the entries that a position sees, times the values' scales, in two
 * bytes (`quantise_two_bytes`); returns their scale. */
static float softmax(
    const int32_t *products, int position, int entries, float factor, uint32_t first_entry, int16_t *weights,
    int stride) {
    const float *of_keys = key_scales + first_entry;
    const float *of_values = value_scales + first_entry;
    int ring_index = position % ring_size;
    int visible = smaller(position + 1, window);
    for (int j = 0; j < entries; j++) {
        float score = (float)products[j] * (factor * of_keys[j]);
        int age = ring_index - j;
        age = age < 0 ? age + ring_size : age;
        scores[j] = age < visible ? score : MASKED_SCORE;
    }
    float highest = max_value(scores, entries);
    for (int j = 0; j < entries; j++) scores[j] -= highest;
    exponentiate(scores, entries);
    float norm = sum_values(scores, entries);
    for (int j = 0; j < entries; j++) scores[j] *= of_values[j];
    return quantise_two_bytes(scores, entries, weights, stride) / norm;
}

/* Writes one head's attention of rows at successive positions, each over its window, to `attended`. */
static void attend(int layer, int h, int rows, int position) {
    int entries = smaller(ring_size, round_up(position + rows, 16));
    uint32_t first_entry = (uint32_t)(layer * heads + h) * ring_size;
    for (int row = 0; row < rows; row++) {
        int16_t *query = whole + row * padded_head;
        for (int i = head_size; i < padded_head; i++) query[i] = 0;
        row_scales[row] = quantise(qkv + row * 3 * width + h * head_size, head_size, query);
    }
    multiply(whole, rows, padded_head, keys + first_entry * padded_head, entries, padded_head, sums, entries);
    int parts = entries > MAX_SUMMANDS ? 2 : 1;
    float root = __builtin_sqrtf((float)head_size);
    for (int row = 0; row < rows; row++) {
        int16_t *weights = two_bytes + row * parts * entries;
        float factor = row_scales[row] / root;
        row_scales[row] = softmax(sums + row * entries, position + row, entries, factor, first_entry, weights, entries);
    }
    weigh_values(two_bytes, rows * parts, entries, values + first_entry * padded_head, entries, sums);
    for (int row = 0; row < rows; row++) {
        float *out = attended + row * width + h * head_size;
        const int32_t *of_row = sums + row * parts * padded_head;
        for (int i = 0; i < head_size; i++)
            out[i] = from_two_bytes(entries, of_row + i, padded_head) * row_scales[row];
    }
}

/* Replaces each value by its squared ReLU or GELU. */
static void activate(float *x, int count) {
    if (relu2) {
        for (int i = 0; i < count; i++) {
            float positive = x[i] > 0.0f ? x[i] : 0.0f;
            x[i] = positive * positive;
        }
        return;
    }
    for (int i = 0; i < count; i++) tail[i] = -0.5f * x[i] * x[i];
    exponentiate(tail, count);
    for (int i = 0; i < count; i++) {
        float t = 1.0f / (1.0f + (float)(0.3275911 / 1.4142135623730951) * __builtin_fabsf(x[i]));
        float p = (float)1.061405429 * t - (float)1.453152027;
        p = p * t + (float)1.421413741;
        p = p * t - (float)0.284496736;
        p = p * t + (float)0.254829592;
        float beyond = 0.5f * p * t * tail[i];
        x[i] *= x[i] > 0.0f ? 1.0f - beyond : beyond;
    }
}

static void add(float *x, const float *y, int count) {
    for (int i = 0; i < count; i++) x[i] += y[i];
}

/* Writes the logits of a row, from `normed`, to `logits`. */
static void write_logits(int row) {
    int parts = width > MAX_SUMMANDS ? 2 : 1;
    for (int part = 0; part < parts; part++)
        for (int i = width; i < padded_width; i++) two_bytes[part * padded_width + i] = 0;
    float scale = quantise_two_bytes(normed + row * width, width, two_bytes, padded_width) * logit_scale;
    int padded_vocabulary = round_up(vocabulary, 4);
    multiply(two_bytes, parts, padded_width, head_blocks, vocabulary, padded_width, sums, padded_vocabulary);
    float *out = logits + row * vocabulary;
    for (int i = 0; i < vocabulary; i++)
        out[i] = from_two_bytes(width, sums + i, padded_vocabulary) * scale * head_scales[i];
}

/* Appends the first `rows` of `ids`, at successive positions; writes the logits after each of the last `wanted`. */
void EXPORT(forward)(int rows, int position, int wanted) {
    for (int row = 0; row < rows; row++) {
        const float *embedding = tokens + ids[row] * width;
        for (int i = 0; i < width; i++) residual[row * width + i] = embedding[i];
        if (!rotary) add(residual + row * width, positions + (position + row) * width, width);
    }
    for (int layer = 0; layer < layers; layer++) {
        normalise(2 * layer, rows);
        linear(&qkv_product, layer, normed, rows, qkv);
        for (int row = 0; row < rows; row++) write_kv(layer, row, position + row);
        for (int h = 0; h < heads; h++) attend(layer, h, rows, position);
        linear(&attention_output, layer, attended, rows, update);
        add(residual, update, rows * width);
        normalise(2 * layer + 1, rows);
        linear(&mlp_expand, layer, normed, rows, hidden);
        for (int row = 0; row < rows; row++) activate(hidden + row * 4 * width, 4 * width);
        linear(&mlp_output, layer, hidden, rows, update);
        add(residual, update, rows * width);
    }
    normalise(2 * layers, rows);
    for (int row = rows - wanted; row < rows; row++) write_logits(row);
}
