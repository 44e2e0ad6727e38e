// bfloat16 products on the processor's own instructions (AMX, AVX512_BF16): torch's block product with float32 sums, and the packing that it
// wants of its right side, two rows of numbers interleaved in words of 32 bits ("VNNI").
#pragma once
#include <algorithm>

#include "gemm.h"

namespace ik {

// What this processor makes of `half_product`.
enum class HalfSupport { none = 0, works = 1, gains = 2 };
HalfSupport half_support();

// C[m, n] (+)= A[m, k] B[k, n], k even, B in words [k / 2][ldb].
void half_product(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add);

// To be called by a thread that is done with products: gives back the tile registers.
void half_release();

inline float half_word(uint16_t low, uint16_t high) {
  const uint32_t word = low | static_cast<uint32_t>(high) << 16;
  float x;
  std::memcpy(&x, &word, sizeof(x));
  return x;
}

// Keys [n, features] as words [features / 2 rounded up][width], zero beyond n: the right side of Q K^T.
inline void pack_half_keys(int64_t n, int64_t features, const uint16_t* in, int64_t ldi, float* out, int64_t width) {
  const int64_t words = (features + 1) / 2;
  if (n < width) std::fill(out, out + words * width, 0.0f);
  if (features % 2 == 0 && ldi % 2 == 0) {
    transpose(n, words, reinterpret_cast<const float*>(in), ldi / 2, out, width);
    return;
  }
  for (int64_t j = 0; j < n; j++)
    for (int64_t d = 0; d < features; d += 2) out[d / 2 * width + j] = half_word(in[j * ldi + d], d + 1 < features ? in[j * ldi + d + 1] : uint16_t{0});
}

// Values [n, features] as words [width / 2][ldo], zero beyond n and beyond `features`: the right side of P V.
inline void pack_half_values(int64_t n, int64_t features, const uint16_t* in, int64_t ldi, float* out, int64_t ldo, int64_t width) {
  if (n < width || features < ldo) std::fill(out, out + width / 2 * ldo, 0.0f);
  for (int64_t j = 0; j < n; j += 2, in += 2 * ldi, out += ldo) {
    const uint16_t* next = in + ldi;
    if (j + 1 < n)
      for (int64_t d = 0; d < features; d++) out[d] = half_word(in[d], next[d]);
    else
      for (int64_t d = 0; d < features; d++) out[d] = half_word(in[d], 0);
  }
}

typedef uint16_t vh __attribute__((vector_size(VL * 2)));
typedef uint16_t vh_any __attribute__((vector_size(VL * 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));

// n numbers (a multiple of VL) rounded to the nearest bfloat16, ties to even.
inline void to_half(const float* x, int64_t n, uint16_t* out) {
  for (int64_t c = 0; c < n; c += VL) {
    vu bits = (vu)load(x + c);
    bits += 0x7FFF + ((bits >> 16) & 1);
    *reinterpret_cast<vh_any*>(out + c) = __builtin_convertvector(bits >> 16, vh);
  }
}

}  // namespace ik
