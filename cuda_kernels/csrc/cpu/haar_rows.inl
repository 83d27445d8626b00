// Row loops of the CPU library, included once per instruction set inside its own namespace (see haar_cpu.cpp).
// A row is a pair of image rows (top, bottom) of `cells` complete 2x2 blocks and the matching rows of the band grid.

template <typename T>
inline Quad load_quad(const T* top, const T* bottom, int64_t cell) {
  return {to_float(top[2 * cell]), to_float(top[2 * cell + 1]), to_float(bottom[2 * cell]),
          to_float(bottom[2 * cell + 1])};
}

template <typename T>
inline void store_quad(T* top, T* bottom, int64_t cell, Quad q) {
  top[2 * cell] = from_float<T>(q.a);
  top[2 * cell + 1] = from_float<T>(q.b);
  bottom[2 * cell] = from_float<T>(q.c);
  bottom[2 * cell + 1] = from_float<T>(q.d);
}

template <typename T>
void analysis_row(const T* __restrict top, const T* __restrict bottom, const BandRow<T>& bands, int64_t cells) {
  T* __restrict approx = bands.approx;
  T* __restrict horizontal = bands.horizontal;
  T* __restrict vertical = bands.vertical;
  T* __restrict diagonal = bands.diagonal;
#pragma omp simd
  for (int64_t j = 0; j < cells; ++j) {
    const Quad k = butterfly(load_quad(top, bottom, j));
    approx[j] = from_float<T>(k.a);
    horizontal[j] = from_float<T>(k.b);
    vertical[j] = from_float<T>(k.c);
    diagonal[j] = from_float<T>(k.d);
  }
}

template <typename T>
void synthesis_row(const BandRow<const T>& bands, T* __restrict top, T* __restrict bottom, int64_t cells) {
  const T* __restrict approx = bands.approx;
  const T* __restrict horizontal = bands.horizontal;
  const T* __restrict vertical = bands.vertical;
  const T* __restrict diagonal = bands.diagonal;
#pragma omp simd
  for (int64_t j = 0; j < cells; ++j) {
    store_quad(top, bottom, j,
               butterfly({to_float(approx[j]), to_float(horizontal[j]), to_float(vertical[j]), to_float(diagonal[j])}));
  }
}

// Energy of one row; when kGradient, also the pixels of its gradient times `scale`. A null weight counts as 1.
template <typename T, bool kWeighted, bool kGradient>
float loss_row(const LossRow<T>& row, int64_t cells, float low, float high, float scale) {
  const T *__restrict student_top = row.student_top, *__restrict student_bottom = row.student_bottom;
  const T *__restrict teacher_top = row.teacher_top, *__restrict teacher_bottom = row.teacher_bottom;
  const float* __restrict weight = row.weight;
  T *__restrict gradient_top = row.gradient_top, *__restrict gradient_bottom = row.gradient_bottom;
  float energy = 0.0f;
#pragma omp simd reduction(+ : energy)
  for (int64_t j = 0; j < cells; ++j) {
    const Quad error =
        subtract(load_quad(student_top, student_bottom, j), load_quad(teacher_top, teacher_bottom, j));
    const Quad bands = butterfly(error);
    const float m = kWeighted ? weight[j] : 1.0f;
    energy += m * weighted_energy(bands, low, high);
    if (kGradient) {
      const float factor = m * scale;
      store_quad(gradient_top, gradient_bottom, j, weighted_synthesis(bands, factor * low, factor * high));
    }
  }
  return energy;
}
