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
#define KEEP(pointer) __asm__("" : "+r"(pointer))

enum {
    MAX_ROWS = 8,          /* ids that one call reads */
    NUM_PARTIAL_SUMS = 64, /* of a sum of floats */
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
static int16_t *high_bytes, *low_bytes; /* (max(R, C),) */

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
    int longest = larger(round_up(larger(4 * width, vocabulary), 4), ring_size / MAX_ROWS);
    int operand = larger(larger(padded_mlp_width, 2 * padded_width), padded_head);
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
    TAKE(whole, MAX_ROWS * operand);
    TAKE(row_scales, MAX_ROWS);
    TAKE(sums, MAX_ROWS * longest);
    TAKE(scores, ring_size);
    TAKE(tail, 4 * width);
    TAKE(high_bytes, larger(ring_size, padded_width));
    TAKE(low_bytes, larger(ring_size, padded_width));
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

/* Writes the values as whole multiples of the scale that is returned, in two bytes: high · 256 + low. */
static float quantise_two_bytes(const float *values, int count, int16_t *high, int16_t *low) {
    float largest = max_magnitude(values, count);
    float factor = largest > TINY ? INT16_LIMIT / largest : 0.0f;
    for (int i = 0; i < count; i++) {
        int32_t both = (int32_t)((values[i] * factor + ROUND) - ROUND);
        int32_t upper = (both + 128) >> 8;
        high[i] = (int16_t)upper;
        low[i] = (int16_t)(both - upper * 256);
    }
    return largest / INT16_LIMIT;
}

INLINE float from_two_bytes(int32_t high, int32_t low) { return (float)high * 256.0f + (float)low; }

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

/* Multiplies eight numbers of some rows of x, from k on, by those of a block. */
INLINE void multiply_eight(int rows, const int16_t *x, int x_stride, const int8_t *block, int k, v128_t totals[][4]) {
    v128_t eights[4];
    for (int i = 0; i < 4; i++) eights[i] = wasm_i16x8_load8x8(block + 4 * k + 8 * i);
    for (int row = 0; row < rows; row++) {
        v128_t of_row = wasm_v128_load(x + row * x_stride + k);
        for (int i = 0; i < 4; i++)
            totals[row][i] = wasm_i32x4_add(totals[row][i], wasm_i32x4_dot_i16x8(of_row, eights[i]));
    }
}

/* Multiplies some rows of x by a block; sums stay in registers. `rows` is a constant where it is called. */
INLINE void multiply_block(
    int rows, const int16_t *x, int x_stride, const int8_t *block, int count, int32_t *out, int out_stride) {
    v128_t totals[MAX_ROWS][4];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < 4; i++) totals[row][i] = wasm_i32x4_splat(0);
    const int16_t *last = x + count;
    while (last - x >= 32) {
        for (int k = 0; k < 32; k += 8) multiply_eight(rows, x, x_stride, block, k, totals);
        x += 32;
        block += 128;
        KEEP(x);
        KEEP(block);
    }
    for (int k = 0; k < last - x; k += 8) multiply_eight(rows, x, x_stride, block, k, totals);
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

/* Multiplies softmax weights, as high and low bytes, by 16 columns of values. */
INLINE void multiply_values(const int8_t *of_head, int pairs, int32_t *high_sums, int32_t *low_sums) {
    v128_t high_totals[4];
    v128_t low_totals[4];
    for (int i = 0; i < 4; i++) {
        high_totals[i] = wasm_i32x4_splat(0);
        low_totals[i] = wasm_i32x4_splat(0);
    }
    for (int pair = 0; pair < pairs; pair++) {
        v128_t high = wasm_v128_load32_splat(high_bytes + 2 * pair);
        v128_t low = wasm_v128_load32_splat(low_bytes + 2 * pair);
        const int8_t *stored = of_head + (uint32_t)pair * 2 * padded_head;
        for (int i = 0; i < 4; i++) {
            v128_t four = wasm_i16x8_load8x8(stored + 8 * i);
            high_totals[i] = wasm_i32x4_add(high_totals[i], wasm_i32x4_dot_i16x8(four, high));
            low_totals[i] = wasm_i32x4_add(low_totals[i], wasm_i32x4_dot_i16x8(four, low));
        }
    }
    for (int i = 0; i < 4; i++) {
        wasm_v128_store(high_sums + 4 * i, high_totals[i]);
        wasm_v128_store(low_sums + 4 * i, low_totals[i]);
    }
}

/* Writes one head's attention of a row, over its window, to `attended`. */
static void attend(int layer, int h, int row, int position) {
    int ring_index = position % ring_size;
    int visible = smaller(position + 1, window);
    int entries = smaller(ring_size, round_up(position + 1, 16));
    uint32_t first_entry = (uint32_t)(layer * heads + h) * ring_size;
    const float *of_keys = key_scales + first_entry;
    const float *of_values = value_scales + first_entry;
    for (int i = head_size; i < padded_head; i++) whole[i] = 0;
    float query_scale = quantise(qkv + row * 3 * width + h * head_size, head_size, whole);
    multiply(whole, 1, 0, keys + first_entry * padded_head, entries, padded_head, sums, 0);
    float factor = query_scale / __builtin_sqrtf((float)head_size);
    for (int j = 0; j < entries; j++) {
        float score = (float)sums[j] * (factor * of_keys[j]);
        int age = ring_index - j;
        age = age < 0 ? age + ring_size : age;
        scores[j] = age < visible ? score : MASKED_SCORE;
    }
    float highest = max_value(scores, entries);
    for (int j = 0; j < entries; j++) scores[j] -= highest;
    exponentiate(scores, entries);
    float norm = sum_values(scores, entries);
    for (int j = 0; j < entries; j++) scores[j] *= of_values[j];
    float row_scale = quantise_two_bytes(scores, entries, high_bytes, low_bytes) / norm;
    float *out = attended + row * width + h * head_size;
    for (int first = 0; first < head_size; first += 16) {
        int32_t high_sums[16];
        int32_t low_sums[16];
        multiply_values(values + first_entry * padded_head + 2 * first, entries / 2, high_sums, low_sums);
        for (int i = first; i < smaller(first + 16, head_size); i++)
            out[i] = from_two_bytes(high_sums[i - first], low_sums[i - first]) * row_scale;
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
    int16_t *high = whole;
    int16_t *low = whole + padded_width;
    for (int i = width; i < padded_width; i++) {
        high[i] = 0;
        low[i] = 0;
    }
    float scale = quantise_two_bytes(normed + row * width, width, high, low) * logit_scale;
    int padded_vocabulary = round_up(vocabulary, 4);
    multiply(whole, 2, padded_width, head_blocks, vocabulary, padded_width, sums, padded_vocabulary);
    float *out = logits + row * vocabulary;
    for (int i = 0; i < vocabulary; i++)
        out[i] = from_two_bytes(sums[i], sums[padded_vocabulary + i]) * scale * head_scales[i];
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
        for (int h = 0; h < heads; h++)
            for (int row = 0; row < rows; row++) attend(layer, h, row, position + row);
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
