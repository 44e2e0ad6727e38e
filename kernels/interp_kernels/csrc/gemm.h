// Register-blocked products of small row-major panels: C[m, n] (+)= A[m, K] B[K, n], with A read by broadcast and B a vector panel at a time.
#pragma once
#include "vec.h"

namespace ik {

// MR rows by NV vectors of accumulators fill the register file: 24 of 32 on AVX-512 and NEON, 12 of 16 on AVX2.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MR = 12;
#else
constexpr int MR = 6;
#endif
constexpr int NV = 2;
constexpr int NR = NV * VL;  // keys (or features) in a panel

// One register block. The sum over K starts from zero and is added to C at the end: blocked summation keeps float32 error low on long rows.
template <int M, int N>
void micro(int64_t K, const float* A, int64_t lda, const float* B, int64_t ldb, float* C, int64_t ldc, bool add) {
  vf acc[M][N];
#pragma GCC unroll 16
  for (int r = 0; r < M; r++)
#pragma GCC unroll 4
    for (int c = 0; c < N; c++) acc[r][c] = vf{};
  for (int64_t k = 0; k < K; k++) {
    vf b[N];
#pragma GCC unroll 4
    for (int c = 0; c < N; c++) b[c] = load(B + k * ldb + c * VL);
#pragma GCC unroll 16
    for (int r = 0; r < M; r++) {
      vf a = set1(A[r * lda + k]);
#pragma GCC unroll 4
      for (int c = 0; c < N; c++) acc[r][c] += a * b[c];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < M; r++)
#pragma GCC unroll 4
    for (int c = 0; c < N; c++) {
      float* p = C + r * ldc + c * VL;
      store(p, add ? load(p) + acc[r][c] : acc[r][c]);
    }
}

using Micro = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

template <int N>
Micro micro_for(int m) {
  static constexpr Micro table[13] = {nullptr,     micro<1, N>, micro<2, N>, micro<3, N>,  micro<4, N>,  micro<5, N>, micro<6, N>,
#if defined(__AVX512F__) || defined(__aarch64__)
                                      micro<7, N>, micro<8, N>, micro<9, N>, micro<10, N>, micro<11, N>, micro<12, N>
#endif
  };
  return table[m];
}

// C[m, n] (+)= A[m, K] B, m <= MR, n a multiple of VL. Panel p (NR columns) of B starts at B + p * panel and has rows `ldb` apart.
inline void gemm(int m, int64_t n, int64_t K, const float* A, int64_t lda, const float* B, int64_t ldb, int64_t panel, float* C, int64_t ldc, bool add) {
  Micro full = micro_for<NV>(m);
  int64_t c = 0;
  for (; c + NR <= n; c += NR, B += panel) full(K, A, lda, B, ldb, C + c, ldc, add);
  if (c < n) micro_for<1>(m)(K, A, lda, B, ldb, C + c, ldc, add);
}

// Dot products of m <= MR rows with packed vectors, s[m, n]. Long ones are summed in blocks, which keeps the error of float32 at that of a good BLAS.
inline void products(int m, int64_t n, int64_t features, const float* rows, int64_t ldr, const float* panels, float* s, int64_t lds) {
  constexpr int64_t LONG = 128, BLOCK = 64;
  const int64_t block = features <= LONG ? features : BLOCK;
  for (int64_t d = 0; d < features; d += block)
    gemm(m, n, features - d < block ? features - d : block, rows + d, ldr, panels + d * NR, NR, features * NR, s, lds, d > 0);
}

// Any number of rows.
inline void gemm_rows(int64_t m, int64_t n, int64_t K, const float* A, int64_t lda, const float* B, int64_t ldb, int64_t panel, float* C, int64_t ldc, bool add) {
  for (int64_t r = 0; r < m; r += MR) {
    int rows = static_cast<int>(m - r < MR ? m - r : MR);
    gemm(rows, n, K, A + r * lda, lda, B, ldb, panel, C + r * ldc, ldc, add);
  }
}

typedef float v4 __attribute__((vector_size(16)));
typedef float v4_any __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t v4i __attribute__((vector_size(16)));

#if defined(__clang__)
#define IK_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define IK_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, v4i{i, j, k, l})
#endif

// out[d * ldo + r] = in[r * ldi + d] for r < rows, d < cols.
inline void transpose(int64_t rows, int64_t cols, const float* in, int64_t ldi, float* out, int64_t ldo) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    int64_t d = 0;
    for (; d + 4 <= cols; d += 4) {
      v4 x[4];
      for (int c = 0; c < 4; c++) x[c] = *reinterpret_cast<const v4_any*>(in + (r + c) * ldi + d);
      v4 a = IK_SHUFFLE(x[0], x[1], 0, 4, 1, 5), b = IK_SHUFFLE(x[2], x[3], 0, 4, 1, 5);
      v4 e = IK_SHUFFLE(x[0], x[1], 2, 6, 3, 7), f = IK_SHUFFLE(x[2], x[3], 2, 6, 3, 7);
      *reinterpret_cast<v4_any*>(out + d * ldo + r) = IK_SHUFFLE(a, b, 0, 1, 4, 5);
      *reinterpret_cast<v4_any*>(out + (d + 1) * ldo + r) = IK_SHUFFLE(a, b, 2, 3, 6, 7);
      *reinterpret_cast<v4_any*>(out + (d + 2) * ldo + r) = IK_SHUFFLE(e, f, 0, 1, 4, 5);
      *reinterpret_cast<v4_any*>(out + (d + 3) * ldo + r) = IK_SHUFFLE(e, f, 2, 3, 6, 7);
    }
    for (; d < cols; d++)
      for (int c = 0; c < 4; c++) out[d * ldo + r + c] = in[(r + c) * ldi + d];
  }
  for (; r < rows; r++)
    for (int64_t d = 0; d < cols; d++) out[d * ldo + r] = in[r * ldi + d];
}

// Rows [n, cols] as transposed panels [ceil(n / NR)][cols][NR], zero beyond n: the B side of scores = Q K^T.
inline void pack_panels(int64_t n, int64_t cols, const float* in, int64_t ldi, float* out) {
  for (int64_t j = 0; j < n; j += NR, out += cols * NR) {
    int64_t m = n - j < NR ? n - j : NR;
    if (m < NR) std::memset(out, 0, sizeof(float) * cols * NR);
    transpose(m, cols, in + j * ldi, ldi, out, NR);
  }
}

}  // namespace ik
