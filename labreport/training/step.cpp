// Training steps of the network `Baseline` on one core: forward, backward, and gradient descent with momentum.
//
// At batch 10 torch's time goes into its calls; here a step is a few loops whose numbers stay in registers and the first
// cache. It computes what torch computes, in another order of additions, and does less of it:
// - Pooling needs 2x2 neighbouring outputs of each 2x2 convolution. Winograd's F(2x2, 2x2) makes the four from 3x3
//   inputs with 9 multiplications for each pair of channels, where the definition has 16.
// - Pooling passes on one of four outputs, and ReLU not even that one where it is negative. Only what was passed on has a
//   gradient, so backward does a quarter of the work of a convolution without pooling, or less.
//
// Built with -DREAL=float or double and -DBATCH=images of a batch. All maps are channels last.
#ifdef __AVX2__
#include <immintrin.h>
#endif

using real = REAL;
#ifdef __AVX512F__
constexpr int L = 16, TILES = 3;  // numbers of a vector; outputs of 2x2 made at once, as many as the registers hold
#else
constexpr int L = 8, TILES = 1;
#endif
#include "step.h"

static inline unsigned bits(I mask) {  // a bit for each lane that is true
#if defined __AVX512F__ && defined __AVX512DQ__
    if (__m512i one; sizeof mask == sizeof one) return memcpy(&one, &mask, sizeof one), _mm512_movepi32_mask(one);
#elif defined __AVX2__
    if (__m256 one; sizeof mask == sizeof one) return memcpy(&one, &mask, sizeof one), _mm256_movemask_ps(one);
#endif
    unsigned all = 0;
    for (int l = 0; l < L; l++) all |= unsigned(mask[l] & 1) << l;
    return all;
}

struct Parameters {  // as compiled.py packs them; also their gradients, and their momenta
    real w1[16][12], b1[16], w2[32][64], b2[32], w3[64][128], b3[64];
    DenseWeights<576, 64> dense;
};

// A 2x2 convolution of C channels to O, 2x2 pooling and ReLU: from maps of S pixels a side, with their padding, to Q.
template <int C, int O, int S, int Q> struct Block {
    static constexpr int N_TILES = (Q * Q + TILES - 1) / TILES * TILES, ROW = 2 * C / L;  // ROW: vectors of two pixels
    alignas(128) real x[BATCH][S][S][C], dx[S][S][C];                 // the input, and its gradient for one image
    alignas(128) integer passed[BATCH][Q * Q][O];                     // which of the four was passed on; 4: none
    alignas(128) real kernels[O / L][C][9][L], tiles[N_TILES][9][C];  // in Winograd's form

    void transform(const real (*w)[4 * C]) {
        for (int o = 0; o < O; o++)
            for (int c = 0; c < C; c++) {
                real p = w[o][c], q = w[o][C + c], r = w[o][2 * C + c], s = w[o][3 * C + c];
                real all[9] = {p, p + q, q, p + r, p + q + r + s, q + s, r, r + s, s};
                for (int k = 0; k < 9; k++) kernels[o / L][c][k][o % L] = all[k];
            }
    }

    void pool(const V (&y)[4], int n, int q, int o, real* out) {
        I which;
        at(out) = strongest(y, which);
        at(&passed[n][q][o]) = which;
    }

    void forward(int n, const real* bias, real* out) {  // out: (Q, Q, O)
        for (int q = 0; q < Q * Q; q++)
            for (int c = 0; c < C; c += L) {
                V d[3][3];
                for (int k = 0; k < 3; k++) {
                    const real* p = &x[n][q / Q * 2 + k][q % Q * 2][c];
                    d[k][1] = at(p + C), d[k][0] = at(p) - d[k][1], d[k][2] = at(p + 2 * C) - d[k][1];
                }
                for (int k = 0; k < 3; k++) {
                    at(&tiles[q][k][c]) = d[0][k] - d[1][k];
                    at(&tiles[q][3 + k][c]) = d[1][k];
                    at(&tiles[q][6 + k][c]) = d[2][k] - d[1][k];
                }
            }
        for (int o = 0; o < O; o += L)
            for (int first = 0; first < N_TILES; first += TILES) {
                V sums[TILES][9] = {}, b = at(bias + o);
                for (int c = 0; c < C; c++)
#pragma GCC unroll 9
                    for (int k = 0; k < 9; k++) {
                        V w = at(kernels[o / L][c][k]);
#pragma GCC unroll 3
                        for (int t = 0; t < TILES; t++) sums[t][k] += w * tiles[first + t][k][c];
                    }
                for (int t = 0; t < TILES && first + t < Q * Q; t++) {
                    V *m = sums[t], h[3][2];
                    for (int k = 0; k < 3; k++) h[k][0] = m[3 * k] + m[3 * k + 1], h[k][1] = m[3 * k + 1] + m[3 * k + 2];
                    V y[4] = {h[0][0] + h[1][0] + b, h[0][1] + h[1][1] + b, h[1][0] + h[2][0] + b, h[1][1] + h[2][1] + b};
                    pool(y, n, first + t, o, out + (first + t) * O + o);
                }
            }
    }

    // dy: (Q, Q, O), the gradient of what `forward` gave. Adds to dw and db, and fills dx.
    void backward(int n, const real (*w)[4 * C], const real* dy, real (*dw)[4 * C], real* db) {
        memset(dx, 0, sizeof dx);
        for (int q = 0; q < Q * Q; q++, dy += O) {
            for (int o = 0; o < O; o += L) at(db + o) += at(&passed[n][q][o]) < 4 ? at(dy + o) : V{};
            for (int p = 0; p < 4; p++) {
                real* to = dx[q / Q * 2 + p / 2][q % Q * 2 + p % 2];
                const real* from = x[n][q / Q * 2 + p / 2][q % Q * 2 + p % 2];
                V xs[2 * ROW], ds[2 * ROW] = {};  // the 2x2 pixels under the kernel, and their gradient
                for (int r = 0; r < 2 * ROW; r++) xs[r] = at(from + r / ROW * S * C + r % ROW * L);
                for (int part = 0; part < O; part += L)
                    for (unsigned left = bits(at(&passed[n][q][part]) == p); left; left &= left - 1) {
                        int o = part + __builtin_ctz(left);
                        real g = dy[o];
#pragma GCC unroll 8
                        for (int r = 0; r < 2 * ROW; r++) ds[r] += g * at(w[o] + r * L), at(dw[o] + r * L) += g * xs[r];
                    }
                for (int r = 0; r < 2 * ROW; r++) at(to + r / ROW * S * C + r % ROW * L) += ds[r];
            }
        }
    }
};

struct Net {
    Block<3, 16, 29, 14> one;  // 28x28 pixels and a padding above and on the left: others are never seen
    Block<16, 32, 15, 7> two;
    Block<32, 64, 7, 3> three;
    Dense<576, 64> dense;
    alignas(128) real w1[12][16];
    alignas(128) Parameters g;

    const real* pixel(int n, int q, int p, int k) const {  // number k of those under the kernel at output p of tile q
        return one.x[n][q / 14 * 2 + p / 2 + k / 6][q % 14 * 2 + p % 2] + k % 6;
    }
    void first(int n, const real* bias) {  // by the definition: three channels are too few for Winograd
        for (int q = 0; q < 196; q++)
            for (int o = 0; o < 16; o += L) {
                V y[4] = {at(bias + o), at(bias + o), at(bias + o), at(bias + o)};
                for (int k = 0; k < 12; k++)
                    for (int p = 0; p < 4; p++) y[p] += at(w1[k] + o) * *pixel(n, q, p, k);
                one.pool(y, n, q, o, two.x[n][q / 14 + 1][q % 14 + 1] + o);
            }
    }
    void first_backward(int n, int o, V* sums) {  // sums: of the twelve weights, and of the bias
        V all[13];
        memcpy(all, sums, sizeof all);
        for (int q = 0; q < 196; q++) {
            V g = at(two.dx[q / 14 + 1][q % 14 + 1] + o);
            I which = at(&one.passed[n][q][o]);
            for (int p = 0; p < 4; p++) {
                V mine = which == p ? g : V{};
                all[12] += mine;
#pragma GCC unroll 12
                for (int k = 0; k < 12; k++) all[k] += mine * *pixel(n, q, p, k);
            }
        }
        memcpy(sums, all, sizeof all);
    }

    void gradients(const Parameters& w, const real* images, const int64_t* labels, double& loss, int64_t& hits) {
        memset(&g, 0, sizeof g);
        for (int k = 0; k < 12; k++)
            for (int o = 0; o < 16; o++) w1[k][o] = w.w1[o][k];
        two.transform(w.w2), three.transform(w.w3);
        for (int n = 0; n < BATCH; n++) {
            for (int r = 0; r < 28; r++, images += 84) memcpy(one.x[n][r + 1][1], images, 84 * sizeof(real));
            first(n, w.b1);
            two.forward(n, w.b2, three.x[n][0][0]);
            three.forward(n, w.b3, dense.x[n]);
        }
        dense.learn(w.dense, g.dense, labels, loss, hits);
        V sums[16 / L][13] = {};
        for (int n = 0; n < BATCH; n++) {
            three.backward(n, w.w3, dense.dx[n], g.w3, g.b3);
            two.backward(n, w.w2, three.dx[0][0], g.w2, g.b2);
            for (int o = 0; o < 16; o += L) first_backward(n, o, sums[o / L]);
        }
        for (int o = 0; o < 16; o++) {
            for (int k = 0; k < 12; k++) g.w1[o][k] = sums[o / L][k][o % L];
            g.b1[o] = sums[o / L][12][o % L];
        }
    }
};

// images: (steps, BATCH, 28, 28, 3), normalised. labels: (steps, BATCH). Adds to loss and hits. No statistics are kept.
extern "C" void train(Parameters* w, Parameters* momenta, real*, const real* images, const int64_t* labels, int64_t steps,
                      real lr, real momentum, double* loss, int64_t* hits) {
    auto net = std::make_unique<Net>();
    for (int64_t step = 0; step < steps; step++, images += BATCH * 28 * 28 * 3, labels += BATCH) {
        net->gradients(*w, images, labels, *loss, *hits);
        descend(w, momenta, net->g, lr, momentum);
    }
}
