// The elementwise part of a flow step in one pass over memory, forward and backward; what it
// computes is stated in compiled.py. Rows are positions (B·H·W), columns channels (channels-last).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t BLOCKS = 64;  // fixed, so that sums do not depend on the number of threads

// A pack is W numbers of a row: a vector of the compiler's, or a number where W is 1.
template <class T, int W> struct Of {
  typedef T pack __attribute__((vector_size(W * sizeof(T))));
};
template <class T> struct Of<T, 1> {
  using pack = T;
};
template <class T, int W> using Pack = typename Of<T, W>::pack;

// bfloat16 is kept as the upper half of a float, in a plain integer.
using bfloat16 = uint16_t;

template <class To, class From> inline To as_bits(From value) {
  To other;
  std::memcpy(&other, &value, sizeof other);
  return other;
}
template <class To, class From> inline To as_numbers(From value) {
  if constexpr (std::is_arithmetic_v<From>)
    return To(value);
  else
    return __builtin_convertvector(value, To);
}
template <int W, class T> inline auto load(const T* place) {
  Pack<T, W> value;
  std::memcpy(&value, place, sizeof value);
  if constexpr (std::is_same_v<T, bfloat16>)
    return as_bits<Pack<float, W>>(as_numbers<Pack<uint32_t, W>>(value) << 16);
  else
    return value;
}
template <int W, class T, class R> inline void store(T* place, R value) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    auto wide = as_bits<Pack<uint32_t, W>>(value);  // to nearest, ties to even; NaN stays NaN
    wide = value == value ? wide + 0x7fff + (wide >> 16 & 1) : wide | 0x400000;
    auto half = as_numbers<Pack<bfloat16, W>>(wide >> 16);
    std::memcpy(place, &half, sizeof half);
  } else {
    std::memcpy(place, &value, sizeof value);
  }
}

inline double exponential(double x) { return std::exp(x); }

// Cephes' expf: relative error below 2e-7.
template <class R> inline R exponential(R x) {
  using Int = std::conditional_t<sizeof(R) == 4, int32_t, Pack<int32_t, sizeof(R) / 4>>;
  x = x > 88.f ? R() + 88.f : x;
  x = x < -87.f ? R() - 87.f : x;
  const float magic = 12582912.f;  // 1.5 · 2^23: adding it rounds to a whole number
  R n = (x * 1.44269504f + magic) - magic;
  R r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  R r2 = r * r;  // in pairs, which processors work on at once
  R p = (1.9875691500e-4f * r + 1.3981999507e-3f) * (r2 * r2) +
        (8.3334519073e-3f * r + 4.1665795894e-2f) * r2 + (1.6666665459e-1f * r + 5.0000001201e-1f);
  p = p * r2 + (r + 1.f);
  return p * as_bits<R>((as_numbers<Int>(n) + 127) << 23);
}

inline float arctangent(float x) { return std::atan(x); }
inline double arctangent(double x) { return std::atan(x); }
template <class R> inline R arctangent(R x) {
  for (unsigned i = 0; i < sizeof(R) / sizeof x[0]; ++i) x[i] = std::atan(x[i]);
  return x;
}

// Every clamp gives s and its slope ds/da; CODES in compiled.py has the number of each. R is a pack, T its number.
template <class R> inline R tangent(R a) { return 1 - 2 / (exponential(2 * a) + 1); }
struct None {
  template <class R, class T> static void at(R a, T, R& s, R& slope) { s = a, slope = R() + 1; }
};
struct Tanh {
  template <class R, class T> static void at(R a, T c, R& s, R& slope) {
    R t = tangent(a);
    s = c * t, slope = c * (1 - t * t);
  }
};
struct TanhUnit {
  template <class R, class T> static void at(R a, T c, R& s, R& slope) {
    R t = tangent(a / c);
    s = c * t, slope = 1 - t * t;
  }
};
struct Atan {
  template <class R, class T> static void at(R a, T c, R& s, R& slope) {
    s = c * T(0.636) * arctangent(a), slope = c * T(0.636) / (1 + a * a);
  }
};
struct AtanUnit {
  template <class R, class T> static void at(R a, T c, R& s, R& slope) {
    R u = a / c;
    s = c * T(0.636) * arctangent(u), slope = T(0.636) / (1 + u * u);
  }
};
struct Sigmoid {
  template <class R, class T> static void at(R a, T c, R& s, R& slope) {
    R g = 1 / (1 + exponential(-a));
    s = c * (2 * g - 1), slope = 2 * c * g * (1 - g);
  }
};

}  // namespace

extern "C" struct Stage {  // compiled.py's _Stage
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

// y = v[index].
template <int W, class R>
inline void permute(int64_t n, const int32_t* index, const R* v, R* y) {
#ifdef __AVX512F__
  if constexpr (W == 16)
    if (n <= 128) {  // from all pairs of registers; with more of them, one by one is faster
      for (int64_t i = 0; i < n; i += 16) {
        __m512i at = _mm512_loadu_si512(index + i);
        __m512 found = _mm512_setzero_ps();
        for (int64_t from = 0; from < n; from += 32) {
          __mmask16 here = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32(at, 5), _mm512_set1_epi32(from / 32));
          __m512 low = _mm512_loadu_ps(v + from);
          __m512 high = from + 16 < n ? _mm512_loadu_ps(v + from + 16) : low;
          found = _mm512_mask_mov_ps(found, here, _mm512_permutex2var_ps(low, at, high));
        }
        _mm512_storeu_ps(y + i, found);
      }
      return;
    }
#endif
  for (int64_t i = 0; i < n; ++i) y[i] = v[index[i]];
}

template <class F, int W, class R, class A>
void forward(const Stage& g, const R* x, const A* a, const R* scale, const R* shift, R* y,
             A* given, R* log_det) {
  const int64_t C = g.channels, d = g.width;
  const R bound = R(g.bound), gain = R(g.gain);
  const std::vector<int32_t> perm(g.perm, g.perm + C);
  blocks(g, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<R> memory(C);
    R *v = memory.data(), *v2 = v + g.start;
    for (int64_t row = begin; row < end; ++row) {
      const R* xr = x + row * C;
      const A *as = a + row * 2 * d, *at = as + d;
      for (int64_t i = 0; i < C; i += W)
        if (i < g.start || i >= g.start + d)
          store<W>(v + i, load<W>(xr + i) * load<W>(scale + i) + load<W>(shift + i));
      Pack<R, W> sum = {};
      const R *x2 = xr + g.start, *scale2 = scale + g.start, *shift2 = shift + g.start;
      for (int64_t i = 0; i < d; i += W) {
        Pack<R, W> s, slope;
        F::at(load<W>(as + i) * gain, bound, s, slope);
        Pack<R, W> u = load<W>(x2 + i) * exponential(s) + load<W>(at + i) * gain;
        store<W>(v2 + i, u * load<W>(scale2 + i) + load<W>(shift2 + i));
        sum += s;
      }
      if (log_det) {
        R parts[W], total = 0;
        store<W>(parts, sum);
        for (R part : parts) total += part;
        log_det[row] = total;
      }
      permute<W>(C, perm.data(), v, y + row * C);  // may be x's own row, which v has by now
      if (given) {
        A* out = given + row * g.given_width;
        const R* from = y + row * C + g.given_start;
        for (int64_t i = 0; i < g.given_width; i += W) store<W>(out + i, load<W>(from + i));
      }
    }
  });
}

template <class F, int W, class R, class A>
void backward(const Stage& g, const R* x, const A* a, const R* scale, const R* dy,
              const A* dgiven, const R* dlog_det, R* dx, A* da, R* dscale, R* dshift) {
  const int64_t C = g.channels, d = g.width;
  const R bound = R(g.bound), gain = R(g.gain);
  const std::vector<int32_t> inverse(g.inverse, g.inverse + C);
  std::vector<R> partial(BLOCKS * 2 * C, R(0));
  blocks(g, [&](int64_t k, int64_t begin, int64_t end) {
    std::vector<R> memory(2 * C);
    R *out = memory.data(), *v = out + C;
    R *ps = partial.data() + k * 2 * C, *pt = ps + C;
    for (int64_t row = begin; row < end; ++row) {
      const R *xr = x + row * C, *dyr = dy + row * C;
      const A *as = a + row * 2 * d, *at = as + d;
      R* dxr = dx + row * C;
      A *das = da + row * 2 * d, *dat = das + d;
      const R dj = dlog_det[row];
      if (dgiven) {
        const A* dgr = dgiven + row * g.given_width;
        R* vg = v + g.given_start;
        std::memcpy(v, dyr, C * sizeof(R));
        for (int64_t i = 0; i < g.given_width; i += W)
          store<W>(vg + i, load<W>(vg + i) + load<W>(dgr + i));
        dyr = v;
      }
      permute<W>(C, inverse.data(), dyr, out);
      auto affine = [&](int64_t i, Pack<R, W> value) {  // its gradients; gives the value's own
        auto grad = load<W>(out + i);
        store<W>(pt + i, load<W>(pt + i) + grad);
        store<W>(ps + i, load<W>(ps + i) + grad * value);
        return grad * load<W>(scale + i);
      };
      for (int64_t i = 0; i < C; i += W)
        if (i < g.start || i >= g.start + d) store<W>(dxr + i, affine(i, load<W>(xr + i)));
      const R* x2 = xr + g.start;
      R* dx2 = dxr + g.start;
      for (int64_t i = 0; i < d; i += W) {
        Pack<R, W> s, slope;
        F::at(load<W>(as + i) * gain, bound, s, slope);
        const Pack<R, W> e = exponential(s), xe = load<W>(x2 + i) * e;
        const Pack<R, W> dv = affine(g.start + i, xe + load<W>(at + i) * gain);
        store<W>(dx2 + i, dv * e);
        store<W>(dat + i, dv * gain);
        store<W>(das + i, (dv * xe + dj) * slope * gain);
      }
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

// Whether rows divide into packs, the changed channels and the given ones too.
inline bool divides(const Stage& g, int64_t W) {
  return (g.channels % W | g.start % W | g.width % W | g.given_width % W) == 0;
}

}  // namespace

// Returns 0, or 1 for a clamp that is none of these: nothing is written then.
#define PICK(direction, W, ...)                                  \
  switch (g->clamp) {                                            \
    case 0: return direction<None, W>(*g, __VA_ARGS__), 0;       \
    case 1: return direction<Tanh, W>(*g, __VA_ARGS__), 0;       \
    case 2: return direction<TanhUnit, W>(*g, __VA_ARGS__), 0;   \
    case 3: return direction<Atan, W>(*g, __VA_ARGS__), 0;       \
    case 4: return direction<AtanUnit, W>(*g, __VA_ARGS__), 0;   \
    case 5: return direction<Sigmoid, W>(*g, __VA_ARGS__), 0;    \
    default: return 1;                                           \
  }

#define EXPORT(name, R, A, W)                                                                  \
  extern "C" int forward_##name(const Stage* g, const R* x, const A* a, const R* scale,        \
                                const R* shift, R* y, A* given, R* log_det) {                  \
    if (divides(*g, W)) PICK(forward, W, x, a, scale, shift, y, given, log_det)                \
    else PICK(forward, 1, x, a, scale, shift, y, given, log_det)                               \
  }                                                                                            \
  extern "C" int backward_##name(const Stage* g, const R* x, const A* a, const R* scale,       \
                                 const R* dy, const A* dgiven, const R* dlog_det, R* dx,       \
                                 A* da, R* dscale, R* dshift) {                                \
    if (divides(*g, W))                                                                        \
      PICK(backward, W, x, a, scale, dy, dgiven, dlog_det, dx, da, dscale, dshift)             \
    else PICK(backward, 1, x, a, scale, dy, dgiven, dlog_det, dx, da, dscale, dshift)          \
  }

EXPORT(float32, float, float, 16)
EXPORT(bfloat16, float, bfloat16, 16)
EXPORT(float64, double, double, 1)
