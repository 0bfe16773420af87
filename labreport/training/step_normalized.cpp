// Training steps of the network `FirstOptimization` on one core: forward, backward, and gradient descent with momentum.
//
// Batch norm needs every output of a convolution, and gives every output a gradient; so, other than in step.cpp, all work
// is dense, and is two loops: `convolve`, which also leads gradients back to the inputs, and `correlate`, which makes those of
// the kernels. Both keep twelve vectors of sums in registers. It computes what torch computes, in another order of
// additions, but for the convolutions' biases: the batch norm behind them takes any bias out again, so their gradient is
// zero, where torch finds rounding errors.
//
// Built with -DREAL=float or double and -DBATCH=images of a batch. All maps are channels last.
using real = REAL;
constexpr int L = 32 / sizeof(real);  // numbers of a vector: the channels, 16, 24, 32 and 48, are multiples of it
#include "step.h"

// A block's weights as compiled.py packs them: convolution, its bias, and batch norm's scale and shift.
template <int C, int O, int K> struct Weights {
    real kernel[O][K * K * C], bias[O], scale[O], shift[O];
};
struct Parameters {  // also their gradients, and their momenta
    Weights<3, 16, 2> one;
    Weights<16, 24, 2> two;
    Weights<24, 48, 2> three;
    Weights<48, 32, 1> reduce;
    DenseWeights<512, 128> dense;
};
template <int O> struct Running {
    real mean[O], variance[O];
};
struct Statistics {
    Running<16> one;
    Running<24> two;
    Running<48> three;
    Running<32> reduce;
};

// How many vectors of O channels go side by side, so that twelve of sums are two or three by six or four.
constexpr int wide(int O) { return O % (3 * L) == 0 ? 3 : 2; }

// A KxK convolution from maps of S pixels a side and C channels to Q pixels and O channels. kernel: (K * K * C, O).
template <int C, int O, int K, int S, int Q> void convolve(const real* in, const real (*kernel)[O], const real* bias, real* out) {
    constexpr int W = wide(O), P = 12 / W;
    for (int o = 0; o < O; o += W * L)
        for (int first = 0; first < Q * Q; first += P) {
            V sums[P][W];
            const real* pixels[P];
#pragma GCC unroll 6
            for (int p = 0; p < P; p++) {
                int q = first + p < Q * Q ? first + p : Q * Q - 1;
                pixels[p] = in + (q / Q * S + q % Q) * C;
#pragma GCC unroll 3
                for (int v = 0; v < W; v++) sums[p][v] = bias ? at(bias + o + v * L) : V{};
            }
            for (int row = 0; row < K; row++)
                for (int k = 0; k < K * C; k++) {
                    const real* w = kernel[row * K * C + k] + o;
#pragma GCC unroll 6
                    for (int p = 0; p < P; p++)
#pragma GCC unroll 3
                        for (int v = 0; v < W; v++) sums[p][v] += pixels[p][row * S * C + k] * at(w + v * L);
                }
#pragma GCC unroll 6
            for (int p = 0; p < P; p++)
#pragma GCC unroll 3
                for (int v = 0; v < W; v++)
                    if (first + p < Q * Q) at(out + (first + p) * O + o + v * L) = sums[p][v];
        }
}

// Adds the gradient of `convolve`'s kernel, (K * K * C, O), given that of its outputs, dy (Q, Q, O).
template <int C, int O, int K, int S, int Q> void correlate(const real* in, const real* dy, real (*dkernel)[O]) {
    constexpr int W = wide(O), R = 12 / W;
    static_assert(K * C % R == 0);
    for (int o = 0; o < O; o += W * L)
        for (int k = 0; k < K * K * C; k += R) {
            V sums[R][W];
            const real* pixel = in + k / (K * C) * S * C + k % (K * C);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++)
#pragma GCC unroll 3
                for (int v = 0; v < W; v++) sums[r][v] = at(dkernel[k + r] + o + v * L);
            for (int i = 0; i < Q; i++)
                for (int j = 0; j < Q; j++) {
                    const real *x = pixel + (i * S + j) * C, *d = dy + (i * Q + j) * O + o;
#pragma GCC unroll 6
                    for (int r = 0; r < R; r++)
#pragma GCC unroll 3
                        for (int v = 0; v < W; v++) sums[r][v] += x[r] * at(d + v * L);
                }
#pragma GCC unroll 6
            for (int r = 0; r < R; r++)
#pragma GCC unroll 3
                for (int v = 0; v < W; v++) at(dkernel[k + r] + o + v * L) = sums[r][v];
        }
}

// Convolution, batch norm over the batch, TxT max-pooling and ReLU: from H pixels a side, with a border if K is 2, to Z.
template <int C, int O, int K, int H, int T> struct Block {
    static constexpr int S = H + 2 * (K - 1), Q = S - K + 1, Z = Q / T, N = BATCH * Q * Q, TAPS = K * K * C;
    alignas(64) real x[BATCH][S][S][C], y[BATCH][Q * Q][O];  // the input; the convolution's outputs, later their gradient
    alignas(64) real kernel[TAPS][O], back[K * K * O][C], dkernel[TAPS][O];
    alignas(64) integer passed[BATCH][Z * Z][O];  // which of a pool's pixels was passed on; T * T: none
    alignas(64) real mean[O], inverse[O], gain[O], offset[O];  // of y; gain * y + offset is batch norm's output

    static int pixel(int z, int p) { return (z / Z * T + p / T) * Q + z % Z * T + p % T; }

    void statistics(const Weights<C, O, K>& w, Running<O>& running) {
        for (int o = 0; o < O; o += L) {
            V sum = {}, squares = {};
            for (int n = 0; n < BATCH; n++) {
                V part = {};  // of one image, so that the sums of few do not drown in the sum of all
                for (int q = 0; q < Q * Q; q++) part += at(&y[n][q][o]);
                sum += part;
            }
            V center = sum / real(N);
            for (int n = 0; n < BATCH; n++) {
                V part = {};
                for (int q = 0; q < Q * Q; q++) {
                    V d = at(&y[n][q][o]) - center;
                    part += d * d;
                }
                squares += part;
            }
            at(mean + o) = center;
            for (int l = 0; l < L; l++) {
                inverse[o + l] = 1 / std::sqrt(squares[l] / N + real(1e-5));
                running.mean[o + l] += real(0.1) * (center[l] - running.mean[o + l]);
                running.variance[o + l] += real(0.1) * (squares[l] / (N - 1) - running.variance[o + l]);
                gain[o + l] = w.scale[o + l] * inverse[o + l];
                offset[o + l] = w.shift[o + l] - center[l] * gain[o + l];
            }
        }
    }

    void convolve_all(const Weights<C, O, K>& w) {
        for (int o = 0; o < O; o++)
            for (int k = 0; k < TAPS; k++) {
                kernel[k][o] = w.kernel[o][k];
                back[(K * K - 1 - k / C) * O + o][k % C] = w.kernel[o][k];  // the taps in reverse
            }
        for (int n = 0; n < BATCH; n++) convolve<C, O, K, S, Q>(x[n][0][0], kernel, w.bias, y[n][0]);
    }

    V pool(int n, int z, int o) {  // what pool z of image n passes on
        V values[T * T];
        for (int p = 0; p < T * T; p++) values[p] = at(gain + o) * at(&y[n][pixel(z, p)][o]) + at(offset + o);
        return strongest(values, at(&passed[n][z][o]));
    }

    // dz: (BATCH, Z * Z, O), the gradient of what was passed on. Turns y into its gradient, and makes those of the weights.
    void backward(const real* dz, Weights<C, O, K>& g) {
        for (int o = 0; o < O; o += L) {
            V dshift = {}, dscale = {}, center = at(mean + o), inv = at(inverse + o);
            for (int n = 0; n < BATCH; n++) {
                V shifts = {}, scales = {};
                for (int z = 0; z < Z * Z; z++)
                    for (int p = 0; p < T * T; p++) {
                        V d = at(&passed[n][z][o]) == p ? at(dz + (n * Z * Z + z) * O + o) : V{};
                        shifts += d, scales += d * (at(&y[n][pixel(z, p)][o]) - center);
                    }
                dshift += shifts, dscale += scales * inv;
            }
            at(g.shift + o) = dshift, at(g.scale + o) = dscale;
            V a = at(gain + o), slope = a * inv * dscale / real(N), level = slope * center - a * dshift / real(N);
            for (int n = 0; n < BATCH; n++) {
                for (int q = 0; q < Q * Q; q++) at(&y[n][q][o]) = level - slope * at(&y[n][q][o]);
                for (int z = 0; z < Z * Z; z++)
                    for (int p = 0; p < T * T; p++) {
                        V d = at(dz + (n * Z * Z + z) * O + o) * a;
                        at(&y[n][pixel(z, p)][o]) += at(&passed[n][z][o]) == p ? d : V{};
                    }
            }
        }
        memset(dkernel, 0, sizeof dkernel);
        for (int n = 0; n < BATCH; n++) correlate<C, O, K, S, Q>(x[n][0][0], y[n][0], dkernel);
        for (int o = 0; o < O; o++)
            for (int k = 0; k < TAPS; k++) g.kernel[o][k] = dkernel[k][o];
        memset(g.bias, 0, sizeof g.bias);
    }

    void to_inputs(int n, real* d) { convolve<O, C, K, Q, H>(y[n][0], back, nullptr, d); }  // d: (H * H, C)
};

// A map (P, C), channels last, as torch flattens it, channels first; and back.
template <int P, int C> static inline void flatten(const real (&map)[P][C], real* flat) {
    for (int p = 0; p < P; p++)
        for (int c = 0; c < C; c++) flat[c * P + p] = map[p][c];
}
template <int P, int C> static inline void unflatten(const real* flat, real (&map)[P][C]) {
    for (int p = 0; p < P; p++)
        for (int c = 0; c < C; c++) map[p][c] = flat[c * P + p];
}

struct Net {
    Block<3, 16, 2, 32, 2> one;
    Block<16, 24, 2, 16, 2> two;
    Block<24, 48, 2, 8, 2> three;
    Block<48, 32, 1, 4, 1> reduce;
    alignas(64) real d_one[BATCH][256][16], d_two[BATCH][64][24], d_three[BATCH][16][48];
    alignas(64) real last[BATCH][16][32];  // what goes into the dense layers, later its gradient
    Dense<512, 128> dense;
    alignas(64) Parameters g;

    template <class B, class Next, class W, class R> void forward(B& block, const W& w, R& running, Next&& put) {
        block.convolve_all(w);
        block.statistics(w, running);
        for (int n = 0; n < BATCH; n++)
            for (int z = 0; z < B::Z * B::Z; z++)
                for (unsigned o = 0; o < sizeof w.bias / sizeof(real); o += L) put(n, z / B::Z, z % B::Z, o, block.pool(n, z, o));
    }

    void gradients(const Parameters& w, Statistics& s, const real* images, const int64_t* labels, double& loss, int64_t& hits) {
        for (int n = 0; n < BATCH; n++)
            for (int r = 0; r < 32; r++, images += 96) memcpy(one.x[n][r + 1][1], images, 96 * sizeof(real));
        forward(one, w.one, s.one, [&](int n, int i, int j, int o, V v) { at(two.x[n][i + 1][j + 1] + o) = v; });
        forward(two, w.two, s.two, [&](int n, int i, int j, int o, V v) { at(three.x[n][i + 1][j + 1] + o) = v; });
        forward(three, w.three, s.three, [&](int n, int i, int j, int o, V v) { at(reduce.x[n][i][j] + o) = v; });
        forward(reduce, w.reduce, s.reduce, [&](int n, int i, int j, int o, V v) { at(last[n][i * 4 + j] + o) = v; });
        for (int n = 0; n < BATCH; n++) flatten(last[n], dense.x[n]);
        dense.learn(w.dense, g.dense, labels, loss, hits);
        for (int n = 0; n < BATCH; n++) unflatten(dense.dx[n], last[n]);
        reduce.backward(last[0][0], g.reduce);
        for (int n = 0; n < BATCH; n++) reduce.to_inputs(n, d_three[n][0]);
        three.backward(d_three[0][0], g.three);
        for (int n = 0; n < BATCH; n++) three.to_inputs(n, d_two[n][0]);
        two.backward(d_two[0][0], g.two);
        for (int n = 0; n < BATCH; n++) two.to_inputs(n, d_one[n][0]);
        one.backward(d_one[0][0], g.one);
    }
};

// images: (steps, BATCH, 32, 32, 3), normalised. labels: (steps, BATCH). Adds to loss and hits.
extern "C" void train(Parameters* w, Parameters* momenta, Statistics* statistics, const real* images, const int64_t* labels,
                      int64_t steps, real lr, real momentum, double* loss, int64_t* hits) {
    auto net = std::make_unique<Net>();
    for (int64_t step = 0; step < steps; step++, images += BATCH * 32 * 32 * 3, labels += BATCH) {
        net->gradients(*w, *statistics, images, labels, *loss, *hits);
        descend(w, momenta, net->g, lr, momentum);
    }
}
