// What the training steps in C++ share: vectors, pooling's choice, the dense layers with their loss, gradient descent.
//
// Who includes this has set `real`, and `L`, how many of them a vector holds.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

using integer = std::conditional_t<sizeof(real) == 4, int, long>;  // as wide as a real: what comparing vectors gives
typedef real V __attribute__((vector_size(L * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef integer I __attribute__((vector_size(L * sizeof(real)), aligned(sizeof(real)), may_alias));
static inline V& at(real* p) { return *(V*)p; }
static inline const V& at(const real* p) { return *(const V*)p; }
static inline I& at(integer* p) { return *(I*)p; }

// Max-pooling and ReLU: the first maximum, or a NaN, wins, as in torch. `which` is its place, or N where nothing passes.
template <int N> static inline V strongest(const V (&y)[N], I& which) {
    V top = y[0];
    which = I{};
    for (int p = 1; p < N; p++) {
        I more = (y[p] > top) | (y[p] != y[p]);
        top = more ? y[p] : top;
        which = more ? I{} + p : which;
    }
    I off = top <= 0;
    which = off ? I{} + N : which;
    return off ? V{} : top;
}

template <int F, int H> struct DenseWeights {
    real w1[H][F], b1[H], w2[10][H], b2[10];
};

// F features, a hidden layer of H with ReLU, ten logits, cross-entropy.
template <int F, int H> struct Dense {
    alignas(128) real x[BATCH][F], dx[BATCH][F], hidden[BATCH][H], d_hidden[BATCH][H];

    void forward(const DenseWeights<F, H>& w) {
        for (int o = 0; o < H; o++) {
            V sums[BATCH] = {};
            for (int k = 0; k < F; k += L)
                for (int n = 0; n < BATCH; n++) sums[n] += at(w.w1[o] + k) * at(x[n] + k);
            for (int n = 0; n < BATCH; n++) {
                real sum = w.b1[o];
                for (int l = 0; l < L; l++) sum += sums[n][l];
                hidden[n][o] = sum <= 0 ? 0 : sum;
            }
        }
    }

    void backward(const DenseWeights<F, H>& w, DenseWeights<F, H>& g) {
        for (int k = 0; k < F; k += L) {
            V d[BATCH] = {}, xs[BATCH];
            for (int n = 0; n < BATCH; n++) xs[n] = at(x[n] + k);
            for (int o = 0; o < H; o++) {
                V row = at(w.w1[o] + k), sum = {};
#pragma GCC unroll 16
                for (int n = 0; n < BATCH; n++) d[n] += d_hidden[n][o] * row, sum += d_hidden[n][o] * xs[n];
                at(g.w1[o] + k) = sum;
            }
            for (int n = 0; n < BATCH; n++) at(dx[n] + k) = d[n];
        }
    }

    // Logits, cross-entropy, and back to the hidden layer's inputs. Returns the image's loss; counts a right answer.
    double classify(int n, const DenseWeights<F, H>& w, DenseWeights<F, H>& g, int64_t label, int64_t& hits) {
        real z[10], sum = 0, top = -INFINITY;
        int best = 0;
        for (int o = 0; o < 10; o++) {
            z[o] = w.b2[o];
            for (int k = 0; k < H; k++) z[o] += hidden[n][k] * w.w2[o][k];
            if (z[o] > top) top = z[o], best = o;
        }
        for (int o = 0; o < 10; o++) sum += std::exp(z[o] - top);
        memset(d_hidden[n], 0, sizeof d_hidden[n]);
        for (int o = 0; o < 10; o++) {
            real d = (std::exp(z[o] - top) / sum - (o == label)) / BATCH;
            g.b2[o] += d;
            for (int k = 0; k < H; k++) g.w2[o][k] += d * hidden[n][k], d_hidden[n][k] += d * w.w2[o][k];
        }
        for (int k = 0; k < H; k++) {
            if (hidden[n][k] == 0) d_hidden[n][k] = 0;
            g.b1[k] += d_hidden[n][k];
        }
        hits += best == label;
        return top + std::log(sum) - z[label];
    }

    // From x to the loss and back: makes the weights' gradients and dx.
    void learn(const DenseWeights<F, H>& w, DenseWeights<F, H>& g, const int64_t* labels, double& loss, int64_t& hits) {
        memset(&g, 0, sizeof g);
        forward(w);
        for (int n = 0; n < BATCH; n++) loss += classify(n, w, g, labels[n], hits);
        backward(w, g);
    }
};

template <class P> static inline void descend(P* weights, P* momenta, const P& gradient, real lr, real momentum) {
    real *w = (real*)weights, *m = (real*)momenta;
    const real* g = (const real*)&gradient;
    for (size_t i = 0; i < sizeof(P) / sizeof(real); i++) m[i] = momentum * m[i] + g[i], w[i] -= lr * m[i];
}
