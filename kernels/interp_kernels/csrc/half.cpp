// torch's block product behind a plain function, so that only this file sees torch's BLAS.
#include "half.h"

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

namespace ik {
namespace {

namespace blas = at::native::cpublas;

// A small product of whole numbers, exact in any order: whether the product runs here, and reads its operands as this backend packs them.
bool agrees() {
  constexpr int64_t m = 3, n = 16, k = 4;
  float a[m * k], b[k * n], want[m * n], got[m * n];
  for (int64_t e = 0; e < m * k; e++) a[e] = static_cast<float>(e % 5 - 2);
  for (int64_t e = 0; e < k * n; e++) b[e] = static_cast<float>(e % 7 - 3);
  for (int64_t r = 0; r < m; r++)
    for (int64_t c = 0; c < n; c++) {
      want[r * n + c] = 0;
      for (int64_t x = 0; x < k; x++) want[r * n + c] += a[r * k + x] * b[x * n + c];
    }
  uint16_t a_half[round_up(m * k, VL)], b_half[k * n];
  float a_padded[round_up(m * k, VL)] = {}, words[k / 2 * n];
  std::copy(a, a + m * k, a_padded);
  to_half(a_padded, round_up(m * k, VL), a_half);
  to_half(b, k * n, b_half);
  pack_half_values(k, n, b_half, n, words, n, k);
  try {
    half_product(m, n, k, a_half, k, words, n, got, n, false);
    half_release();
  } catch (const std::exception&) {
    return false;
  }
  return std::equal(got, got + m * n, want);
}

}  // namespace

HalfSupport half_support() {
  if (!at::globalContext().userEnabledMkldnn()) return HalfSupport::none;
  static const bool works = agrees();
  if (!works) return HalfSupport::none;
#if defined(__AVX512BF16__)
  return HalfSupport::gains;
#else
  return blas::could_pack(at::kBFloat16) ? HalfSupport::gains : HalfSupport::works;  // with AMX
#endif
}

void half_product(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
  blas::brgemm(m, n, k, lda, ldb, ldc, add, reinterpret_cast<const at::BFloat16*>(a), reinterpret_cast<const at::BFloat16*>(b), c, true);
}

void half_release() { blas::brgemm_release(true); }

}  // namespace ik
