/* The integer network on an ARM core, exact to the bit: int8 times int8 into int32, a shift that rounds half to even,
 * saturation. README.md beside this file says how tensors and weights lie in memory, and why.
 *
 * Built freestanding: no library is linked. Without NEON the same arithmetic in plain C, for tests on other machines.
 */
#include <stddef.h>
#include <stdint.h>
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

enum kind { CONVOLUTION, DEPTHWISE, ADD, UPSAMPLE, COPY, MAX_POOL, MEAN_POOL, CHANNEL_MAX };

struct tensor {
    int8_t *first; /* pixel (0, 0), inside the border of zeros */
    int32_t height, width;
    int32_t pixel, row; /* distance of neighbours in bytes */
};

struct layer {
    int32_t kind;
    struct tensor source, second, target; /* second: of ADD */
    int32_t bytes;                        /* of a pixel that are computed; a multiple of 4 where the kind needs it */
    int32_t kernel, stride;
    int32_t before;         /* rows and columns by which the first window begins outside the picture */
    int32_t low;            /* smallest value that is written: 0 for ReLU, else -128 */
    int32_t left, right;    /* shifts of ADD's two tensors to the left */
    int32_t blocks;         /* of 16 bytes in one row of the kernel */
    const int8_t *weights;  /* CONVOLUTION: (bytes / 4, kernel, blocks, 4, 16); DEPTHWISE: (kernel, kernel, bytes) */
    const int32_t *bias;    /* (bytes) */
    const int32_t *shift;   /* (bytes), to the right; one for ADD and MEAN_POOL */
};

static inline int32_t saturate(int32_t value, int32_t low)
{
    return value > 127 ? 127 : value < low ? low : value;
}

/* total / 2^shift, rounded half to even. Adding half - 1, and 1 more where the floor is odd, carries exactly then. */
static inline int32_t round_shift(int32_t total, int32_t shift)
{
    int32_t is_shifted = shift > 0;
    int32_t half = is_shifted << (shift - is_shifted);
    return (total + half - is_shifted + ((total >> shift) & is_shifted)) >> shift;
}

#ifdef __ARM_NEON
/* Four sums in four lanes. */
static inline int32x4_t add_lanes(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    int32x2_t ab = vpadd_s32(vadd_s32(vget_low_s32(a), vget_high_s32(a)), vadd_s32(vget_low_s32(b), vget_high_s32(b)));
    int32x2_t cd = vpadd_s32(vadd_s32(vget_low_s32(c), vget_high_s32(c)), vadd_s32(vget_low_s32(d), vget_high_s32(d)));
    return vcombine_s32(ab, cd);
}

/* Sums of four channels (q8..q11 and q12..q15) for two pixels over a kernel's rows, 16 bytes at a time. Two products fit
 * in int16, as weights lie in -127..127: their sum in -32512..32512. subtle: written in assembly because the compiler
 * runs out of registers and needs 53 instructions for the 30 of the loop; each waits for none of the three before it. */
static __attribute__((noinline)) void sum_block(const int8_t *a, const int8_t *b, int32_t row, const int8_t *weights,
                                                int32_t kernel, int32_t blocks, int32x4_t *sums)
{
    int32x4_t a0, a1, a2, a3, b0, b1, b2, b3;
    const int8_t *pa, *pb;
    int32_t count;
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = vdupq_n_s32(0);
    __asm__("1: mov %[pa], %[a]\n"
            "mov %[pb], %[b]\n"
            "mov %[count], %[blocks]\n"
            "2: vld1.8 {d0-d1}, [%[pa]]!\n"
            "vld1.8 {d2-d3}, [%[pb]]!\n"
            "vld1.8 {d4-d7}, [%[weights]]!\n"
            "vmull.s8 q4, d0, d4\n"
            "vmull.s8 q5, d2, d4\n"
            "vmull.s8 q6, d0, d6\n"
            "vmull.s8 q7, d2, d6\n"
            "vmlal.s8 q4, d1, d5\n"
            "vmlal.s8 q5, d3, d5\n"
            "vmlal.s8 q6, d1, d7\n"
            "vmlal.s8 q7, d3, d7\n"
            "vld1.8 {d4-d7}, [%[weights]]!\n"
            "vpadal.s16 %q[a0], q4\n"
            "vpadal.s16 %q[b0], q5\n"
            "vpadal.s16 %q[a1], q6\n"
            "vpadal.s16 %q[b1], q7\n"
            "vmull.s8 q4, d0, d4\n"
            "vmull.s8 q5, d2, d4\n"
            "vmull.s8 q6, d0, d6\n"
            "vmull.s8 q7, d2, d6\n"
            "vmlal.s8 q4, d1, d5\n"
            "vmlal.s8 q5, d3, d5\n"
            "vmlal.s8 q6, d1, d7\n"
            "vmlal.s8 q7, d3, d7\n"
            "subs %[count], %[count], #1\n"
            "vpadal.s16 %q[a2], q4\n"
            "vpadal.s16 %q[b2], q5\n"
            "vpadal.s16 %q[a3], q6\n"
            "vpadal.s16 %q[b3], q7\n"
            "bne 2b\n"
            "add %[a], %[a], %[row]\n"
            "add %[b], %[b], %[row]\n"
            "subs %[kernel], %[kernel], #1\n"
            "bne 1b\n"
            : [a] "+r"(a), [b] "+r"(b), [weights] "+r"(weights), [kernel] "+r"(kernel), [pa] "=&r"(pa),
              [pb] "=&r"(pb), [count] "=&r"(count), [a0] "+w"(a0), [a1] "+w"(a1), [a2] "+w"(a2), [a3] "+w"(a3),
              [b0] "+w"(b0), [b1] "+w"(b1), [b2] "+w"(b2), [b3] "+w"(b3)
            : [row] "r"(row), [blocks] "r"(blocks)
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory");
    sums[0] = add_lanes(a0, a1, a2, a3);
    sums[1] = add_lanes(b0, b1, b2, b3);
}

struct rounding {
    int32x4_t bias, right, half, is_shifted; /* right: negative, for vshl */
    int8x8_t low;
};

static inline struct rounding prepare_rounding(int32x4_t bias, int32x4_t shift, int32_t low)
{
    int32x4_t one = vdupq_n_s32(1);
    struct rounding r;
    r.bias = bias;
    r.right = vnegq_s32(shift);
    r.is_shifted = vminq_s32(shift, one);
    r.half = vsubq_s32(vshlq_s32(r.is_shifted, vsubq_s32(shift, r.is_shifted)), r.is_shifted);
    r.low = vdup_n_s8((int8_t)low);
    return r;
}

static inline struct rounding prepare(const struct layer *layer, int32_t channel)
{
    return prepare_rounding(vld1q_s32(layer->bias + channel), vld1q_s32(layer->shift + channel), layer->low);
}

static inline int16x4_t requantize(int32x4_t sum, const struct rounding *r)
{
    int32x4_t total = vaddq_s32(sum, r->bias);
    int32x4_t odd = vandq_s32(vshlq_s32(total, r->right), r->is_shifted);
    total = vaddq_s32(vaddq_s32(total, r->half), odd);
    return vqmovn_s32(vshlq_s32(total, r->right));
}

static inline void convolve_pair(const struct layer *layer, const int8_t *a, const int8_t *b, const int8_t *weights,
                                 const struct rounding *r, int8_t *to_a, int8_t *to_b)
{
    int32x4_t sums[2];
    sum_block(a, b, layer->source.row, weights, layer->kernel, layer->blocks, sums);
    int8x8_t both = vqmovn_s16(vcombine_s16(requantize(sums[0], r), requantize(sums[1], r)));
    uint32x2_t words = vreinterpret_u32_s8(vmax_s8(both, r->low));
    vst1_lane_u32((uint32_t *)to_b, words, 1);
    vst1_lane_u32((uint32_t *)to_a, words, 0);
}

static inline int32x4_t add_shifted(int16x4_t a, int16x4_t b, int32x4_t left, int32x4_t right)
{
    return vaddq_s32(vshlq_s32(vmovl_s16(a), left), vshlq_s32(vmovl_s16(b), right));
}

/* As many bytes of a row as come in eights; returns how many. */
static int32_t add_eights(const struct layer *layer, const int8_t *a, const int8_t *b, int8_t *to, int32_t bytes)
{
    const struct rounding r = prepare_rounding(vdupq_n_s32(0), vdupq_n_s32(layer->shift[0]), layer->low);
    int32x4_t left = vdupq_n_s32(layer->left), right = vdupq_n_s32(layer->right);
    int32_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        int16x8_t va = vmovl_s8(vld1_s8(a + i)), vb = vmovl_s8(vld1_s8(b + i));
        int16x4_t low = requantize(add_shifted(vget_low_s16(va), vget_low_s16(vb), left, right), &r);
        int16x4_t high = requantize(add_shifted(vget_high_s16(va), vget_high_s16(vb), left, right), &r);
        vst1_s8(to + i, vmax_s8(vqmovn_s16(vcombine_s16(low, high)), r.low));
    }
    return i;
}

/* As many channels of a pixel as come in eights; returns how many. */
static int32_t depthwise_eights(const struct layer *layer, const int8_t *corner, int8_t *to)
{
    int32_t channel = 0;
    for (; channel + 8 <= layer->bytes; channel += 8) {
        const int8_t *weights = layer->weights + channel, *row = corner + channel;
        int32x4_t low = vdupq_n_s32(0), high = low;
        for (int32_t ky = 0; ky < layer->kernel; ky++, row += layer->source.row)
            for (int32_t kx = 0; kx < layer->kernel; kx++, weights += layer->bytes) {
                int16x8_t product = vmull_s8(vld1_s8(row + kx * layer->source.pixel), vld1_s8(weights));
                low = vaddw_s16(low, vget_low_s16(product));
                high = vaddw_s16(high, vget_high_s16(product));
            }
        struct rounding first = prepare(layer, channel), second = prepare(layer, channel + 4);
        int16x8_t both = vcombine_s16(requantize(low, &first), requantize(high, &second));
        vst1_s8(to + channel, vmax_s8(vqmovn_s16(both), first.low));
    }
    return channel;
}

/* The largest of as many channels as come in sixteens; returns how many. */
static int32_t largest_of_sixteens(const int8_t *from, int32_t count, int32_t *largest)
{
    int8x16_t lanes = vdupq_n_s8(-128);
    int32_t i = 0;
    for (; i + 16 <= count; i += 16)
        lanes = vmaxq_s8(lanes, vld1q_s8(from + i));
    int8x8_t pairs = vmax_s8(vget_low_s8(lanes), vget_high_s8(lanes));
    for (int32_t step = 0; step < 3; step++)
        pairs = vpmax_s8(pairs, pairs);
    *largest = vget_lane_s8(pairs, 0);
    return i;
}
#else
static int32_t depthwise_eights(const struct layer *layer, const int8_t *corner, int8_t *to)
{
    (void)layer, (void)corner, (void)to;
    return 0;
}

static int32_t largest_of_sixteens(const int8_t *from, int32_t count, int32_t *largest)
{
    (void)from, (void)count, (void)largest;
    return 0;
}

static int32_t add_eights(const struct layer *layer, const int8_t *a, const int8_t *b, int8_t *to, int32_t bytes)
{
    (void)layer, (void)a, (void)b, (void)to, (void)bytes;
    return 0;
}

struct rounding {
    const int32_t *bias, *shift;
};

static inline struct rounding prepare(const struct layer *layer, int32_t channel)
{
    return (struct rounding){layer->bias + channel, layer->shift + channel};
}

static inline void convolve_pixel(const struct layer *layer, const int8_t *pixels, const int8_t *weights,
                                  const struct rounding *r, int8_t *to)
{
    int32_t sums[4] = {r->bias[0], r->bias[1], r->bias[2], r->bias[3]};
    for (int32_t y = 0; y < layer->kernel; y++, pixels += layer->source.row)
        for (int32_t block = 0; block < layer->blocks; block++, weights += 64)
            for (int32_t channel = 0; channel < 4; channel++)
                for (int32_t i = 0; i < 16; i++)
                    sums[channel] += pixels[16 * block + i] * weights[16 * channel + i];
    for (int32_t channel = 0; channel < 4; channel++)
        to[channel] = (int8_t)saturate(round_shift(sums[channel], r->shift[channel]), layer->low);
}

static inline void convolve_pair(const struct layer *layer, const int8_t *a, const int8_t *b, const int8_t *weights,
                                 const struct rounding *r, int8_t *to_a, int8_t *to_b)
{
    convolve_pixel(layer, b, weights, r, to_b);
    convolve_pixel(layer, a, weights, r, to_a);
}
#endif

/* Row by row, so that the source's rows stay in the first cache while all channels pass over them. */
static void convolve(const struct layer *layer)
{
    const struct tensor *source = &layer->source, *target = &layer->target;
    int32_t step = layer->stride * source->pixel;
    int32_t group_bytes = layer->kernel * layer->blocks * 64;
    for (int32_t y = 0; y < target->height; y++) {
        const int8_t *corner = source->first + (y * layer->stride - layer->before) * source->row -
                               layer->before * source->pixel;
        for (int32_t channel = 0; channel < layer->bytes; channel += 4) {
            const struct rounding r = prepare(layer, channel);
            const int8_t *weights = layer->weights + (channel >> 2) * group_bytes, *pixels = corner;
            int8_t *to = target->first + y * target->row + channel;
            int32_t x = 0;
            for (; x + 1 < target->width; x += 2, pixels += 2 * step, to += 2 * target->pixel)
                convolve_pair(layer, pixels, pixels + step, weights, &r, to, to + target->pixel);
            if (x < target->width)
                convolve_pair(layer, pixels, pixels, weights, &r, to, to);
        }
    }
}

static void depthwise(const struct layer *layer)
{
    const struct tensor *source = &layer->source, *target = &layer->target;
    for (int32_t y = 0; y < target->height; y++)
        for (int32_t x = 0; x < target->width; x++) {
            const int8_t *corner = source->first + (y * layer->stride - layer->before) * source->row +
                                   (x * layer->stride - layer->before) * source->pixel;
            int8_t *to = target->first + y * target->row + x * target->pixel;
            for (int32_t channel = depthwise_eights(layer, corner, to); channel < layer->bytes; channel++) {
                const int8_t *weights = layer->weights + channel;
                int32_t sum = layer->bias[channel];
                for (int32_t ky = 0; ky < layer->kernel; ky++)
                    for (int32_t kx = 0; kx < layer->kernel; kx++, weights += layer->bytes)
                        sum += corner[ky * source->row + kx * source->pixel + channel] * *weights;
                to[channel] = (int8_t)saturate(round_shift(sum, layer->shift[channel]), layer->low);
            }
        }
}

static void add(const struct layer *layer)
{
    const struct tensor *left = &layer->source, *right = &layer->second, *target = &layer->target;
    for (int32_t y = 0; y < target->height; y++) {
        const int8_t *a = left->first + y * left->row, *b = right->first + y * right->row;
        int8_t *to = target->first + y * target->row;
        int32_t bytes = target->width * target->pixel;
        for (int32_t i = add_eights(layer, a, b, to, bytes); i < bytes; i++) {
            int32_t total = a[i] * (1 << layer->left) + b[i] * (1 << layer->right);
            to[i] = (int8_t)saturate(round_shift(total, layer->shift[0]), layer->low);
        }
    }
}

/* Each pixel of the target from the one `scale` bits before it: the upsampled, or a copy among other channels. */
static void copy(const struct layer *layer, int32_t scale)
{
    const struct tensor *source = &layer->source, *target = &layer->target;
    for (int32_t y = 0; y < target->height; y++)
        for (int32_t x = 0; x < target->width; x++) {
            const int8_t *from = source->first + (y >> scale) * source->row + (x >> scale) * source->pixel;
            int8_t *restrict to = target->first + y * target->row + x * target->pixel;
            __builtin_memcpy(to, from, (size_t)layer->bytes);
        }
}

/* What lies outside the picture does not count for the largest, and counts as zero for the mean. */
static void pool(const struct layer *layer)
{
    const struct tensor *source = &layer->source, *target = &layer->target;
    for (int32_t y = 0; y < target->height; y++)
        for (int32_t x = 0; x < target->width; x++) {
            int8_t *to = target->first + y * target->row + x * target->pixel;
            for (int32_t channel = 0; channel < layer->bytes; channel++) {
                int32_t sum = 0, largest = -128;
                for (int32_t ky = 0; ky < layer->kernel; ky++)
                    for (int32_t kx = 0; kx < layer->kernel; kx++) {
                        int32_t sy = y * layer->stride - layer->before + ky;
                        int32_t sx = x * layer->stride - layer->before + kx;
                        if (sy < 0 || sy >= source->height || sx < 0 || sx >= source->width)
                            continue;
                        int32_t value = source->first[sy * source->row + sx * source->pixel + channel];
                        sum += value;
                        largest = value > largest ? value : largest;
                    }
                int32_t mean = saturate(round_shift(sum, layer->shift[0]), layer->low);
                to[channel] = (int8_t)(layer->kind == MAX_POOL ? largest : mean);
            }
        }
}

static void channel_max(const struct layer *layer)
{
    const struct tensor *source = &layer->source, *target = &layer->target;
    for (int32_t y = 0; y < target->height; y++)
        for (int32_t x = 0; x < target->width; x++) {
            const int8_t *from = source->first + y * source->row + x * source->pixel;
            int32_t largest = -128, channel = largest_of_sixteens(from, layer->bytes, &largest);
            for (; channel < layer->bytes; channel++)
                largest = from[channel] > largest ? from[channel] : largest;
            target->first[y * target->row + x * target->pixel] = (int8_t)largest;
        }
}

int32_t kernels_layer_bytes(void)
{
    return (int32_t)sizeof(struct layer); /* the caller compares: it has the same structure written down in Python */
}

void kernels_run(const struct layer *layers, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        const struct layer *layer = &layers[i];
        switch (layer->kind) {
        case CONVOLUTION: convolve(layer); break;
        case DEPTHWISE: depthwise(layer); break;
        case ADD: add(layer); break;
        case UPSAMPLE: copy(layer, 1); break;
        case COPY: copy(layer, 0); break;
        case CHANNEL_MAX: channel_max(layer); break;
        default: pool(layer);
        }
    }
}
