// The elementwise part of a flow step in one pass over memory, forward and backward; what it
// computes is stated in native.py. Rows are positions (B·H·W), columns channels (channels-last).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t BLOCKS = 64;  // fixed, so that sums do not depend on the number of threads

// bfloat16 is kept as the upper half of a float, in a plain integer, so that loops vectorise.
using bfloat16 = uint16_t;
inline float load(float value) { return value; }
inline double load(double value) { return value; }
inline float load(bfloat16 bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
inline void store(float& place, float value) { place = value; }
inline void store(double& place, double value) { place = value; }
inline void store(bfloat16& place, float value) {  // to nearest, ties to even
  uint32_t wide;
  std::memcpy(&wide, &value, 4);
  place = value != value ? 0x7fc0 : uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
}

inline double exponential(double x) { return std::exp(x); }

// Cephes' expf: relative error below 2e-7. Written out, so that compilers vectorise it.
inline float exponential(float x) {
  x = x > 88.f ? 88.f : x;
  x = x < -87.f ? -87.f : x;
  float n = __builtin_rintf(x * 1.44269504f);
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  int32_t power = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, 4);
  return p * scale;
}

// Every clamp gives s and its slope ds/da; CLAMPS in flow.py lists them.
template <class R> inline R tangent(R a) { return 1 - 2 / (exponential(2 * a) + 1); }
struct None {
  template <class R> static void at(R a, R, R& s, R& slope) { s = a, slope = 1; }
};
struct Tanh {
  template <class R> static void at(R a, R c, R& s, R& slope) {
    R t = tangent(a);
    s = c * t, slope = c * (1 - t * t);
  }
};
struct TanhUnit {
  template <class R> static void at(R a, R c, R& s, R& slope) {
    R t = tangent(a / c);
    s = c * t, slope = 1 - t * t;
  }
};
struct Atan {
  template <class R> static void at(R a, R c, R& s, R& slope) {
    s = c * R(0.636) * std::atan(a), slope = c * R(0.636) / (1 + a * a);
  }
};
struct AtanUnit {
  template <class R> static void at(R a, R c, R& s, R& slope) {
    R u = a / c;
    s = c * R(0.636) * std::atan(u), slope = R(0.636) / (1 + u * u);
  }
};
struct Sigmoid {
  template <class R> static void at(R a, R c, R& s, R& slope) {
    R g = 1 / (1 + exponential(-a));
    s = c * (2 * g - 1), slope = 2 * c * g * (1 - g);
  }
};

}  // namespace

extern "C" struct Stage {  // native.py's _Stage
  int64_t rows, channels, start, width, given_start, given_width, clamp, threads;
  double bound, gain;
  const int64_t *perm, *inverse;
};

namespace {

template <class Body> void blocks(const Stage& g, Body body) {
#pragma omp parallel for num_threads(g.threads) schedule(static)
  for (int64_t k = 0; k < BLOCKS; ++k)
    body(k, g.rows * k / BLOCKS, g.rows * (k + 1) / BLOCKS);
}

template <class F, class R, class A>
void forward(const Stage& g, const R* x, const A* a, const R* scale, const R* shift, R* y,
             A* given, R* log_det) {
  const int64_t C = g.channels, d = g.width;
  const int64_t* __restrict perm = g.perm;
  const R bound = R(g.bound), gain = R(g.gain);
  blocks(g, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<R> memory(C);
    R* __restrict v = memory.data();
    for (int64_t row = begin; row < end; ++row) {
      const R* xr = x + row * C;
      const R* x2 = xr + g.start;
      const A *as = a + row * 2 * d, *at = as + d;
      R* v2 = v + g.start;
      R sum = 0;
      for (int64_t i = 0; i < C; ++i) v[i] = xr[i];
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < d; ++i) {
        R s, slope;
        F::at(load(as[i]) * gain, bound, s, slope);
        v2[i] = x2[i] * exponential(s) + load(at[i]) * gain;
        sum += s;
      }
      if (log_det) log_det[row] = sum;
      for (int64_t i = 0; i < C; ++i) v[i] = v[i] * scale[i] + shift[i];
      R* __restrict yr = y + row * C;  // may be x's own row, which v has by now
      for (int64_t i = 0; i < C; ++i) yr[i] = v[perm[i]];
      if (given) {
        A* __restrict out = given + row * g.given_width;
        for (int64_t i = 0; i < g.given_width; ++i) store(out[i], yr[g.given_start + i]);
      }
    }
  });
}

template <class F, class R, class A>
void backward(const Stage& g, const R* x, const A* a, const R* scale, const R* dy,
              const A* dgiven, const R* dlog_det, R* dx, A* da, R* dscale, R* dshift) {
  const int64_t C = g.channels, d = g.width;
  const int64_t* __restrict inverse = g.inverse;
  const R bound = R(g.bound), gain = R(g.gain);
  std::vector<R> partial(BLOCKS * 2 * C, R(0));
  blocks(g, [&](int64_t k, int64_t begin, int64_t end) {
    std::vector<R> memory(2 * C);
    R *__restrict out = memory.data(), *__restrict v = out + C;
    R *__restrict ps = partial.data() + k * 2 * C, *__restrict pt = ps + C;
    for (int64_t row = begin; row < end; ++row) {
      const R* __restrict xr = x + row * C;
      const A *as = a + row * 2 * d, *at = as + d;
      R* __restrict dxr = dx + row * C;
      A *__restrict das = da + row * 2 * d, *__restrict dat = das + d;
      const R dj = dlog_det[row];
      for (int64_t i = 0; i < C; ++i) v[i] = dy[row * C + i];
      if (dgiven)
        for (int64_t i = 0; i < g.given_width; ++i)
          v[g.given_start + i] += load(dgiven[row * g.given_width + i]);
      for (int64_t i = 0; i < C; ++i) out[i] = v[inverse[i]];
      for (int64_t i = 0; i < C; ++i) v[i] = xr[i];
      for (int64_t i = 0; i < C; ++i) pt[i] += out[i];
      for (int64_t i = 0; i < C; ++i) dxr[i] = out[i] * scale[i];
      R *v2 = v + g.start, *dx2 = dxr + g.start;
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) {
        R s, slope;
        F::at(load(as[i]) * gain, bound, s, slope);
        const R e = exponential(s), xe = v2[i] * e, dv = dx2[i];
        dx2[i] = dv * e;
        store(dat[i], dv * gain);
        store(das[i], (dv * xe + dj) * slope * gain);
        v2[i] = xe + load(at[i]) * gain;
      }
      for (int64_t i = 0; i < C; ++i) ps[i] += out[i] * v[i];
    }
  });
  for (int64_t i = 0; i < C; ++i) {
    R s = 0, t = 0;
    for (int64_t k = 0; k < BLOCKS; ++k) {
      s += partial[k * 2 * C + i];
      t += partial[k * 2 * C + C + i];
    }
    dscale[i] = s, dshift[i] = t;
  }
}

}  // namespace

#define PICK(direction, R, A, ...)                                              \
  switch (g->clamp) {                                                           \
    case 0: return direction<None, R, A>(*g, __VA_ARGS__);                      \
    case 1: return direction<Tanh, R, A>(*g, __VA_ARGS__);                      \
    case 2: return direction<TanhUnit, R, A>(*g, __VA_ARGS__);                  \
    case 3: return direction<Atan, R, A>(*g, __VA_ARGS__);                      \
    case 4: return direction<AtanUnit, R, A>(*g, __VA_ARGS__);                  \
    case 5: return direction<Sigmoid, R, A>(*g, __VA_ARGS__);                   \
  }

#define EXPORT(name, R, A)                                                                     \
  extern "C" void forward_##name(const Stage* g, const R* x, const A* a, const R* scale,       \
                                 const R* shift, R* y, A* given, R* log_det) {                 \
    PICK(forward, R, A, x, a, scale, shift, y, given, log_det)                                 \
  }                                                                                            \
  extern "C" void backward_##name(const Stage* g, const R* x, const A* a, const R* scale,      \
                                  const R* dy, const A* dgiven, const R* dlog_det, R* dx,      \
                                  A* da, R* dscale, R* dshift) {                               \
    PICK(backward, R, A, x, a, scale, dy, dgiven, dlog_det, dx, da, dscale, dshift)            \
  }

EXPORT(float32, float, float)
EXPORT(bfloat16, float, bfloat16)
EXPORT(float64, double, double)
