// Vectors of float for any ISA: GCC/Clang vector types, so that one source serves AVX-512, AVX2 and NEON; exp and tanh to about 1 ulp.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ik {

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX2__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef float vf_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(VL * 4), aligned(4), may_alias));

constexpr float INF = std::numeric_limits<float>::infinity();

inline vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
inline vi loadi(const int32_t* p) { return *reinterpret_cast<const vi_any*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf_any*>(p) = x; }
inline vf set1(float x) { return x - vf{}; }
inline vi set1i(int32_t x) { return x - vi{}; }

inline vf iota() {
  vf x;
  for (int c = 0; c < VL; c++) x[c] = static_cast<float>(c);
  return x;
}
inline vi iotai() {
  vi x;
  for (int c = 0; c < VL; c++) x[c] = c;
  return x;
}

inline vf vmax(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// Halves are folded on each other, so that the order of the sum is the same on every run.
inline float hsum(vf x) {
  float t[VL];
  store(t, x);
  for (int w = VL / 2; w > 0; w /= 2)
    for (int c = 0; c < w; c++) t[c] += t[c + w];
  return t[0];
}
inline float hmax(vf x) {
  float t[VL];
  store(t, x);
  for (int w = VL / 2; w > 0; w /= 2)
    for (int c = 0; c < w; c++) t[c] = t[c] > t[c + w] ? t[c] : t[c + w];
  return t[0];
}
inline bool any(vi m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)m) != 0;
#else
  int32_t t = 0;
  for (int c = 0; c < VL; c++) t |= m[c];
  return t != 0;
#endif
}

// The exponent's floor: below it the weight counts as this tiny normal number, which no float32 sum can see; hidden entries are set to 0 apart.
constexpr float EXP_FLOOR = -87.0f;

constexpr float EXP_C2 = 4.999999343e-01f, EXP_C3 = 1.666652040e-01f, EXP_C4 = 4.166839080e-02f, EXP_C5 = 8.368745280e-03f, EXP_C6 = 1.381453988e-03f;
constexpr float TANH_C0 = -3.333333091e-01f, TANH_C1 = 1.333320977e-01f, TANH_C2 = -5.394720454e-02f;
constexpr float TANH_C3 = 2.170296837e-02f, TANH_C4 = -8.182676533e-03f, TANH_C5 = 2.147538981e-03f;

// e^x for EXP_FLOOR <= x <= 88: x = n ln 2 + r, a polynomial of degree 6 in r (relative error 3e-9), then the exponent bits.
inline vf exp_floored(vf x) {
  constexpr float log2e = 1.44269504088896341f, ln2 = 0.693147180559945309f;
#if defined(__AVX512F__)
  vf n = (vf)_mm512_roundscale_ps((__m512)(x * log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  vf shifted = x * log2e + magic;
  vf n = shifted - magic;
#endif
#if defined(__FMA__) || defined(__aarch64__)
  vf r = x - n * ln2;  // float(ln 2) is off by 2e-9 only, so one fused product is enough
#else
  vf r = x - n * 0.693359375f - n * (ln2 - 0.693359375f);
#endif
  vf p = r * EXP_C6 + EXP_C5;
  p = p * r + EXP_C4;
  p = p * r + EXP_C3;
  p = p * r + EXP_C2;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return (vf)((vi)p + (((vi)shifted - 0x4B400000) << 23));
#endif
}
inline vf vexp(vf x) { return exp_floored(vmax(x, set1(EXP_FLOOR))); }

// tanh: an odd polynomial below 0.625, 1 - 2 / (e^{2|x|} + 1) above.
inline vf vtanh(vf x) {
  vf z = x * x;
  vf p = z * TANH_C5 + TANH_C4;
  p = p * z + TANH_C3;
  p = p * z + TANH_C2;
  p = p * z + TANH_C1;
  p = p * z + TANH_C0;
  vf small = x + x * (z * p);
  vf a = x < 0.0f ? -x : x;
  vf capped = a > 20.0f ? set1(20.0f) : a;
  vf big = 1.0f - 2.0f / (exp_floored(capped + capped) + 1.0f);
  big = x < 0.0f ? -big : big;
  return a < 0.625f ? small : big;
}

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace ik
