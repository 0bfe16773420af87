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
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#ifdef __AVX2__
#include <immintrin.h>
#endif

using real = REAL;
#ifdef __AVX512F__
constexpr int L = 16, TILES = 3;  // numbers of a vector; outputs of 2x2 made at once, as many as the registers hold
#else
constexpr int L = 8, TILES = 1;
#endif
using integer = std::conditional_t<sizeof(real) == 4, int, long>;  // as wide as a real: what comparing vectors gives
typedef real V __attribute__((vector_size(L * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef integer I __attribute__((vector_size(L * sizeof(real)), aligned(sizeof(real)), may_alias));
static inline V& at(real* p) { return *(V*)p; }
static inline const V& at(const real* p) { return *(const V*)p; }
static inline I& at(integer* p) { return *(I*)p; }

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
    real w1[16][12], b1[16], w2[32][64], b2[32], w3[64][128], b3[64], w4[64][576], b4[64], w5[10][64], b5[10];
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

    void pool(const V y[4], int n, int q, int o, real* out) {  // the first maximum, or a NaN, wins, as in torch
        V top = y[0];
        I which = {};
        for (int p = 1; p < 4; p++) {
            I more = (y[p] > top) | (y[p] != y[p]);
            top = more ? y[p] : top;
            which = more ? I{} + p : which;
        }
        I off = top <= 0;
        at(out) = off ? V{} : top;
        at(&passed[n][q][o]) = off ? I{} + 4 : which;
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
    alignas(128) real w1[12][16], flat[BATCH][576], d_flat[BATCH][576], hidden[BATCH][64], d_hidden[BATCH][64];
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

    void dense(const Parameters& w) {  // flat to hidden
        for (int o = 0; o < 64; o++) {
            V sums[BATCH] = {};
            for (int k = 0; k < 576; k += L)
                for (int n = 0; n < BATCH; n++) sums[n] += at(w.w4[o] + k) * at(flat[n] + k);
            for (int n = 0; n < BATCH; n++) {
                real sum = w.b4[o];
                for (int l = 0; l < L; l++) sum += sums[n][l];
                hidden[n][o] = sum <= 0 ? 0 : sum;
            }
        }
    }
    void dense_backward(const Parameters& w) {
        for (int k = 0; k < 576; k += L) {
            V d[BATCH] = {}, x[BATCH];
            for (int n = 0; n < BATCH; n++) x[n] = at(flat[n] + k);
            for (int o = 0; o < 64; o++) {
                V row = at(w.w4[o] + k), sum = {};
#pragma GCC unroll 16
                for (int n = 0; n < BATCH; n++) d[n] += d_hidden[n][o] * row, sum += d_hidden[n][o] * x[n];
                at(g.w4[o] + k) = sum;
            }
            for (int n = 0; n < BATCH; n++) at(d_flat[n] + k) = d[n];
        }
    }

    // Logits, cross-entropy, and back to the hidden layer's inputs. Returns the image's loss; counts a right answer.
    double classify(int n, const Parameters& w, int64_t label, int64_t& hits) {
        real z[10], sum = 0, top = -INFINITY;
        int best = 0;
        for (int o = 0; o < 10; o++) {
            z[o] = w.b5[o];
            for (int k = 0; k < 64; k++) z[o] += hidden[n][k] * w.w5[o][k];
            if (z[o] > top) top = z[o], best = o;
        }
        for (int o = 0; o < 10; o++) sum += std::exp(z[o] - top);
        memset(d_hidden[n], 0, sizeof d_hidden[n]);
        for (int o = 0; o < 10; o++) {
            real d = (std::exp(z[o] - top) / sum - (o == label)) / BATCH;
            g.b5[o] += d;
            for (int k = 0; k < 64; k++) g.w5[o][k] += d * hidden[n][k], d_hidden[n][k] += d * w.w5[o][k];
        }
        for (int k = 0; k < 64; k++) {
            if (hidden[n][k] == 0) d_hidden[n][k] = 0;
            g.b4[k] += d_hidden[n][k];
        }
        hits += best == label;
        return top + std::log(sum) - z[label];
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
            three.forward(n, w.b3, flat[n]);
        }
        dense(w);
        for (int n = 0; n < BATCH; n++) loss += classify(n, w, labels[n], hits);
        dense_backward(w);
        V sums[16 / L][13] = {};
        for (int n = 0; n < BATCH; n++) {
            three.backward(n, w.w3, d_flat[n], g.w3, g.b3);
            two.backward(n, w.w2, three.dx[0][0], g.w2, g.b2);
            for (int o = 0; o < 16; o += L) first_backward(n, o, sums[o / L]);
        }
        for (int o = 0; o < 16; o++) {
            for (int k = 0; k < 12; k++) g.w1[o][k] = sums[o / L][k][o % L];
            g.b1[o] = sums[o / L][12][o % L];
        }
    }
};

// images: (steps, BATCH, 28, 28, 3), normalised. labels: (steps, BATCH). Adds to loss and hits.
extern "C" void train(Parameters* w, Parameters* momenta, const real* images, const int64_t* labels, int64_t steps, real lr,
                      real momentum, double* loss, int64_t* hits) {
    auto net = std::make_unique<Net>();
    real *weight = (real*)w, *m = (real*)momenta, *g = (real*)&net->g;
    for (int64_t step = 0; step < steps; step++, images += BATCH * 28 * 28 * 3, labels += BATCH) {
        net->gradients(*w, images, labels, *loss, *hits);
        for (size_t i = 0; i < sizeof *w / sizeof *weight; i++) m[i] = momentum * m[i] + g[i], weight[i] -= lr * m[i];
    }
}
