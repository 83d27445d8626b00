// CPU library of the Haar kernels: one pass over memory, OpenMP over planes, row loops per instruction set.
// Every plane's energy is summed by itself and the planes in order, so a result does not depend on the threads.
#include "haar_cpu.h"

#include <cstring>
#include <vector>

#include "haar_rows.h"

namespace edgekd {

enum class InstructionSet { baseline, avx2, avx512 };

InstructionSet this_cpu() {
#ifdef __x86_64__
  static const InstructionSet found = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      return InstructionSet::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
    return InstructionSet::baseline;
  }();
  return found;
#else
  return InstructionSet::baseline;
#endif
}

#ifdef __x86_64__
#define EDGEKD_ROWS(isa, ...)                                \
  ((isa) == InstructionSet::avx512 ? avx512::__VA_ARGS__     \
   : (isa) == InstructionSet::avx2 ? avx2::__VA_ARGS__       \
                                   : baseline::__VA_ARGS__)
#else
#define EDGEKD_ROWS(isa, ...) baseline::__VA_ARGS__
#endif

struct Grid {
  int64_t height, width, cells_high, cells_wide;
  bool replicate;
  explicit Grid(const edgekd_haar_shape& shape)
      : height(shape.height), width(shape.width), cells_high((height + 1) / 2), cells_wide((width + 1) / 2),
        replicate(shape.replicate != 0) {}
  bool is_whole(int64_t cell_row) const { return width % 2 == 0 && 2 * cell_row + 1 < height; }
  int64_t cells() const { return cells_high * cells_wide; }
};

// Two rows of 2 * cells_wide pixels for the cells at an odd edge, where the image has no complete blocks.
template <typename T>
class EdgeRows {
 public:
  explicit EdgeRows(const Grid& grid) : grid_(grid), pixels_(4 * grid.cells_wide) {}
  T* top() { return pixels_.data(); }
  T* bottom() { return pixels_.data() + 2 * grid_.cells_wide; }

  void read(const T* plane, int64_t cell_row) {
    const T* image_top = plane + 2 * cell_row * grid_.width;
    pad(top(), image_top);
    if (2 * cell_row + 1 < grid_.height) pad(bottom(), image_top + grid_.width);
    else if (grid_.replicate) pad(bottom(), image_top);
    else std::memset(static_cast<void*>(bottom()), 0, 2 * grid_.cells_wide * sizeof(T));
  }

  void write(T* plane, int64_t cell_row) {
    T* image_top = plane + 2 * cell_row * grid_.width;
    const bool has_bottom = 2 * cell_row + 1 < grid_.height;
    if (grid_.replicate) fold(has_bottom);
    std::memcpy(static_cast<void*>(image_top), top(), grid_.width * sizeof(T));
    if (has_bottom) std::memcpy(static_cast<void*>(image_top + grid_.width), bottom(), grid_.width * sizeof(T));
  }

 private:
  void pad(T* row, const T* image_row) {
    std::memcpy(static_cast<void*>(row), image_row, grid_.width * sizeof(T));
    if (grid_.width % 2) row[grid_.width] = grid_.replicate ? row[grid_.width - 1] : from_float<T>(0.0f);
  }

  // The adjoint of copying the last row or column: what the copy received belongs to the original.
  void fold(bool has_bottom) {
    if (!has_bottom)
      for (int64_t j = 0; j < 2 * grid_.cells_wide; ++j)
        top()[j] = from_float<T>(to_float(top()[j]) + to_float(bottom()[j]));
    if (grid_.width % 2)
      for (T* row : {top(), bottom()})
        row[grid_.width - 1] = from_float<T>(to_float(row[grid_.width - 1]) + to_float(row[grid_.width]));
  }

  const Grid grid_;
  std::vector<T> pixels_;
};

template <typename T>
void analysis(const edgekd_haar_shape& shape, const T* x, void* const bands[4]) {
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
#pragma omp parallel num_threads(shape.threads)
  {
    EdgeRows<T> edge(grid);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane) {
      const T* pixels = x + plane * grid.height * grid.width;
      for (int64_t i = 0; i < grid.cells_high; ++i) {
        const T *top = pixels + 2 * i * grid.width, *bottom = top + grid.width;
        if (!grid.is_whole(i)) {
          edge.read(pixels, i);
          top = edge.top(), bottom = edge.bottom();
        }
        const int64_t row = plane * grid.cells() + i * grid.cells_wide;
        const BandRow<T> out{static_cast<T*>(bands[0]) + row, static_cast<T*>(bands[1]) + row,
                             static_cast<T*>(bands[2]) + row, static_cast<T*>(bands[3]) + row};
        EDGEKD_ROWS(isa, analysis_row<T>(top, bottom, out, grid.cells_wide));
      }
    }
  }
}

template <typename T>
void synthesis(const edgekd_haar_shape& shape, const void* const bands[4], T* x) {
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
#pragma omp parallel num_threads(shape.threads)
  {
    EdgeRows<T> edge(grid);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane) {
      T* pixels = x + plane * grid.height * grid.width;
      for (int64_t i = 0; i < grid.cells_high; ++i) {
        const bool whole = grid.is_whole(i);
        T* top = whole ? pixels + 2 * i * grid.width : edge.top();
        T* bottom = whole ? top + grid.width : edge.bottom();
        const int64_t row = plane * grid.cells() + i * grid.cells_wide;
        const BandRow<const T> in{static_cast<const T*>(bands[0]) + row, static_cast<const T*>(bands[1]) + row,
                                  static_cast<const T*>(bands[2]) + row, static_cast<const T*>(bands[3]) + row};
        EDGEKD_ROWS(isa, synthesis_row<T>(in, top, bottom, grid.cells_wide));
        if (!whole) edge.write(pixels, i);
      }
    }
  }
}

template <typename T>
struct LossArguments {
  const T *student, *teacher;
  const float* cell_weight;
  T* gradient;
  int64_t channels;
  LossFactors factors;
};

template <typename T>
struct LossEdges {
  EdgeRows<T> student, teacher, gradient;
  explicit LossEdges(const Grid& grid) : student(grid), teacher(grid), gradient(grid) {}
};

template <typename T, bool kWeighted, bool kGradient>
double plane_loss(const Grid& grid, InstructionSet isa, const LossArguments<T>& args, int64_t plane,
                  LossEdges<T>& edges) {
  const int64_t start = plane * grid.height * grid.width;
  double totals[kLanes] = {};
  for (int64_t i = 0; i < grid.cells_high; ++i) {
    const int64_t top = start + 2 * i * grid.width, bottom = top + grid.width;
    const bool whole = grid.is_whole(i);
    LossRow<T> row{args.student + top, args.student + bottom, args.teacher + top, args.teacher + bottom,
                   nullptr, nullptr, nullptr};
    if (kWeighted) row.weight = args.cell_weight + plane / args.channels * grid.cells() + i * grid.cells_wide;
    if (kGradient) row.gradient_top = args.gradient + top, row.gradient_bottom = args.gradient + bottom;
    if (!whole) {
      edges.student.read(args.student + start, i);
      edges.teacher.read(args.teacher + start, i);
      row = {edges.student.top(), edges.student.bottom(), edges.teacher.top(), edges.teacher.bottom(), row.weight,
             edges.gradient.top(), edges.gradient.bottom()};
    }
    EDGEKD_ROWS(isa, loss_row<T, kWeighted, kGradient>(row, grid.cells_wide, args.factors, totals));
    if (kGradient && !whole) edges.gradient.write(args.gradient + start, i);
  }
  double energy = 0.0;
  for (const double total : totals) energy += total;
  return energy;
}

template <typename T, bool kWeighted, bool kGradient>
double loss(const edgekd_haar_shape& shape, const LossArguments<T>& args, double* plane_energy) {
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
#pragma omp parallel num_threads(shape.threads)
  {
    LossEdges<T> edges(grid);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane)
      plane_energy[plane] = plane_loss<T, kWeighted, kGradient>(grid, isa, args, plane, edges);
  }
  double energy = 0.0;
  for (int64_t plane = 0; plane < shape.planes; ++plane) energy += plane_energy[plane];
  return energy;
}

template <typename T>
double loss(const edgekd_haar_shape& shape, const LossArguments<T>& args, double* plane_energy) {
  if (args.cell_weight) {
    return args.gradient ? loss<T, true, true>(shape, args, plane_energy) : loss<T, true, false>(shape, args, plane_energy);
  }
  return args.gradient ? loss<T, false, true>(shape, args, plane_energy) : loss<T, false, false>(shape, args, plane_energy);
}

}  // namespace edgekd

using edgekd::BFloat16;
using edgekd::Half;

extern "C" void edgekd_haar_analysis(int dtype, const edgekd_haar_shape* shape, const void* x, void* const bands[4]) {
  if (dtype == EDGEKD_FLOAT32) edgekd::analysis(*shape, static_cast<const float*>(x), bands);
  else if (dtype == EDGEKD_FLOAT16) edgekd::analysis(*shape, static_cast<const Half*>(x), bands);
  else edgekd::analysis(*shape, static_cast<const BFloat16*>(x), bands);
}

extern "C" void edgekd_haar_synthesis(int dtype, const edgekd_haar_shape* shape, const void* const bands[4], void* x) {
  if (dtype == EDGEKD_FLOAT32) edgekd::synthesis(*shape, bands, static_cast<float*>(x));
  else if (dtype == EDGEKD_FLOAT16) edgekd::synthesis(*shape, bands, static_cast<Half*>(x));
  else edgekd::synthesis(*shape, bands, static_cast<BFloat16*>(x));
}

template <typename T>
static double loss_of(const edgekd_haar_shape* shape, const void* student, const void* teacher,
                      const float* cell_weight, int64_t channels, float low, float high, void* gradient,
                      float gradient_scale, double* plane_energy) {
  const edgekd::LossArguments<T> args{static_cast<const T*>(student), static_cast<const T*>(teacher), cell_weight,
                                      static_cast<T*>(gradient), channels, {low, high, gradient_scale}};
  return edgekd::loss(*shape, args, plane_energy);
}

extern "C" double edgekd_haar_loss(int dtype, const edgekd_haar_shape* shape, const void* student, const void* teacher,
                                   const float* cell_weight, int64_t channels, float low, float high, void* gradient,
                                   float gradient_scale, double* plane_energy) {
  const auto run = dtype == EDGEKD_FLOAT32 ? loss_of<float> : dtype == EDGEKD_FLOAT16 ? loss_of<Half> : loss_of<BFloat16>;
  return run(shape, student, teacher, cell_weight, channels, low, high, gradient, gradient_scale, plane_energy);
}

extern "C" const char* edgekd_haar_instruction_set(void) {
  switch (edgekd::this_cpu()) {
    case edgekd::InstructionSet::avx512: return "avx512";
    case edgekd::InstructionSet::avx2: return "avx2";
    default: return "baseline";
  }
}
