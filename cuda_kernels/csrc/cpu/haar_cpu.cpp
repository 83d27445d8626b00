// CPU library of the Haar kernels: one pass over memory, OpenMP over planes, row loops per instruction set.
// Every plane's energy is summed by itself and the planes in order, so a result does not depend on the threads.
#include "haar_cpu.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <numeric>
#include <type_traits>
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
  int64_t whole_rows() const { return width % 2 == 0 ? height / 2 : 0; }  // the others touch an odd edge
  int64_t cells() const { return cells_high * cells_wide; }
};

// Planes of even sizes touch no edge: several small ones are one tall plane, whose bands are written in whole lines.
edgekd_haar_shape joined(edgekd_haar_shape shape) {
  if (shape.height % 2 || shape.width % 2) return shape;
  constexpr int64_t kPixels = 4096;
  for (; shape.planes % 2 == 0 && shape.height * shape.width < kPixels; shape.planes /= 2) shape.height *= 2;
  return shape;
}

// Two rows of 2 * cells_wide pixels for the cells at an odd edge, where the image has no complete blocks.
template <typename T>
class EdgeRows {
 public:
  explicit EdgeRows(const Grid& grid) : grid_(grid), pixels_(4 * grid.cells_wide) {}
  T* pair() { return pixels_.data(); }

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
  T* top() { return pixels_.data(); }
  T* bottom() { return pixels_.data() + 2 * grid_.cells_wide; }

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

constexpr int64_t kLineBytes = 64;
constexpr int64_t kCacheBytes = 32 << 20;  // maps of more bytes, read and written, do not stay in a cache together
constexpr int64_t kStageBytes = 4096;      // that the stages hold, next to the input in the first-level cache

// How an output is written. A plain store first reads the line that it overwrites, half as much traffic again; where a
// cache cannot keep the maps they go past it: straight from the registers where these hold whole lines, else by way of
// a stage.
enum class Output { cached, staged, streamed };

template <typename T>
int64_t map_bytes(const edgekd_haar_shape& shape) {
  return shape.planes * shape.height * shape.width * int64_t(sizeof(T));
}

// Whether every n_elements of the outputs start at a line and in a register that holds one.
template <typename T>
bool registers_are_lines(InstructionSet isa, std::initializer_list<const void*> outputs, int64_t n_elements) {
  uintptr_t misaligned = n_elements * sizeof(T);
  for (const void* output : outputs) misaligned |= reinterpret_cast<uintptr_t>(output);
  return isa == InstructionSet::avx512 && std::is_same<T, float>::value && misaligned % kLineBytes == 0;
}

// The ends of four stages are parts of lines, so bands take twice the size before that pays.
template <typename T>
Output output_of_bands(const edgekd_haar_shape& shape, InstructionSet isa, void* const bands[4], int64_t plane_cells) {
  const int64_t bytes = 2 * map_bytes<T>(shape);
  if (bytes < kCacheBytes) return Output::cached;
  if (registers_are_lines<T>(isa, {bands[0], bands[1], bands[2], bands[3]}, plane_cells)) return Output::streamed;
  return bytes < 2 * kCacheBytes ? Output::cached : Output::staged;
}

// Rows of one output, collected and then written past the caches.
template <typename T>
class Stage {
 public:
  Stage(int64_t n_elements, Output output, InstructionSet isa)
      : isa_(isa), rows_(output == Output::staged ? n_elements : 0) {}

  T* place(T* to) { return rows_.empty() ? to : rows_.data(); }
  void release(T* to, int64_t n_elements) const {
    if (!rows_.empty()) EDGEKD_ROWS(isa_, stream_copy(to, rows_.data(), n_elements * int64_t(sizeof(T))));
  }

 private:
  InstructionSet isa_;
  std::vector<T> rows_;
};

// Rows taken at a time: as many as fit on the stages of all outputs, or all.
template <typename T>
int64_t rows_at_once(Output output, const Grid& grid) {
  const int64_t row_bytes = 4 * grid.cells_wide * int64_t(sizeof(T));
  return output == Output::staged ? std::max<int64_t>(1, kStageBytes / row_bytes) : grid.cells_high;
}

template <typename T>
BandRow<T> band_row(void* const bands[4], int64_t offset) {
  return {static_cast<T*>(bands[0]) + offset, static_cast<T*>(bands[1]) + offset, static_cast<T*>(bands[2]) + offset,
          static_cast<T*>(bands[3]) + offset};
}

template <typename T>
BandRow<const T> band_row(const void* const bands[4], int64_t offset) {
  return {static_cast<const T*>(bands[0]) + offset, static_cast<const T*>(bands[1]) + offset,
          static_cast<const T*>(bands[2]) + offset, static_cast<const T*>(bands[3]) + offset};
}

template <typename T>
void analysis(const edgekd_haar_shape& planes, const T* x, void* const bands[4]) {
  const edgekd_haar_shape shape = joined(planes);
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
  const RowPattern rows(grid.cells_wide);
  const Output output = output_of_bands<T>(shape, isa, bands, grid.cells());
  const int64_t step = rows_at_once<T>(output, grid);
#pragma omp parallel num_threads(shape.threads)
  {
    EdgeRows<T> edge(grid);
    const Stage<T> empty(step * grid.cells_wide, output, isa);
    Stage<T> stages[4] = {empty, empty, empty, empty};
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane) {
      const T* pixels = x + plane * grid.height * grid.width;
      const int64_t first = plane * grid.cells();
      for (int64_t i = 0, n; i < grid.whole_rows(); i += n) {
        n = std::min(step, grid.whole_rows() - i);
        const BandRow<T> to = band_row<T>(bands, first + i * grid.cells_wide);
        const BandRow<T> held{stages[0].place(to.approx), stages[1].place(to.horizontal), stages[2].place(to.vertical),
                              stages[3].place(to.diagonal), output == Output::streamed};
        EDGEKD_ROWS(isa, analysis_rows<T>(pixels + 2 * i * grid.width, n, held, rows));
        stages[0].release(to.approx, n * grid.cells_wide);
        stages[1].release(to.horizontal, n * grid.cells_wide);
        stages[2].release(to.vertical, n * grid.cells_wide);
        stages[3].release(to.diagonal, n * grid.cells_wide);
      }
      for (int64_t i = grid.whole_rows(); i < grid.cells_high; ++i) {
        edge.read(pixels, i);
        const BandRow<T> to = band_row<T>(bands, first + i * grid.cells_wide);
        EDGEKD_ROWS(isa, analysis_rows<T>(edge.pair(), 1, to, rows));
      }
    }
    EDGEKD_ROWS(isa, stream_fence());
  }
}

template <typename T>
void synthesis(const edgekd_haar_shape& planes, const void* const bands[4], T* x) {
  const edgekd_haar_shape shape = joined(planes);
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
  const RowPattern rows(grid.cells_wide);
  const Output output = 2 * map_bytes<T>(shape) < kCacheBytes ? Output::cached : Output::staged;
  const int64_t step = rows_at_once<T>(output, grid);
#pragma omp parallel num_threads(shape.threads)
  {
    EdgeRows<T> edge(grid);
    Stage<T> stage(step * 2 * grid.width, output, isa);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane) {
      T* pixels = x + plane * grid.height * grid.width;
      const int64_t first = plane * grid.cells();
      for (int64_t i = 0, n; i < grid.whole_rows(); i += n) {
        n = std::min(step, grid.whole_rows() - i);
        T* to = pixels + 2 * i * grid.width;
        const BandRow<const T> from = band_row<T>(bands, first + i * grid.cells_wide);
        EDGEKD_ROWS(isa, synthesis_rows<T>(from, n, stage.place(to), rows));
        stage.release(to, 2 * n * grid.width);
      }
      for (int64_t i = grid.whole_rows(); i < grid.cells_high; ++i) {
        const BandRow<const T> from = band_row<T>(bands, first + i * grid.cells_wide);
        EDGEKD_ROWS(isa, synthesis_rows<T>(from, 1, edge.pair(), rows));
        edge.write(pixels, i);
      }
    }
    EDGEKD_ROWS(isa, stream_fence());
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
struct LossRoom {
  EdgeRows<T> student, teacher, gradient;
  Output output;  // of the gradient
  int64_t step;   // pairs of its rows at a time
  Stage<T> stage;
  LossRoom(const Grid& grid, Output how, InstructionSet isa)
      : student(grid), teacher(grid), gradient(grid), output(how), step(rows_at_once<T>(how, grid)),
        stage(step * 2 * grid.width, how, isa) {}
};

template <typename T, bool kWeighted, bool kGradient>
double plane_loss(const edgekd_haar_shape& shape, const LossArguments<T>& args, int64_t plane, LossRoom<T>& room) {
  const Grid grid(shape);
  const InstructionSet isa = this_cpu();
  const int64_t start = plane * grid.height * grid.width;
  const float* weight = kWeighted ? args.cell_weight + plane / args.channels * grid.cells() : nullptr;
  double totals[kLanes] = {};
  for (int64_t i = 0, n; i < grid.whole_rows(); i += n) {
    n = std::min(room.step, grid.whole_rows() - i);
    const int64_t at = start + 2 * i * grid.width;
    T* to = kGradient ? args.gradient + at : nullptr;
    const LossRows<T> maps{args.student + at, args.teacher + at, kWeighted ? weight + i * grid.cells_wide : nullptr,
                           kGradient ? room.stage.place(to) : nullptr, room.output == Output::streamed};
    EDGEKD_ROWS(isa, loss_rows<T, kWeighted, kGradient>(maps, n, grid.cells_wide, args.factors, totals));
    if (kGradient) room.stage.release(to, 2 * n * grid.width);
  }
  for (int64_t i = grid.whole_rows(); i < grid.cells_high; ++i) {
    room.student.read(args.student + start, i);
    room.teacher.read(args.teacher + start, i);
    const LossRows<T> maps{room.student.pair(), room.teacher.pair(), kWeighted ? weight + i * grid.cells_wide : nullptr,
                           room.gradient.pair()};
    EDGEKD_ROWS(isa, loss_rows<T, kWeighted, kGradient>(maps, 1, grid.cells_wide, args.factors, totals));
    if (kGradient) room.gradient.write(args.gradient + start, i);
  }
  double energy = 0.0;
  for (const double total : totals) energy += total;
  return energy;
}

template <typename T, bool kWeighted, bool kGradient>
double loss(const edgekd_haar_shape& planes, const LossArguments<T>& args) {
  const edgekd_haar_shape shape = kWeighted ? planes : joined(planes);
  const InstructionSet isa = this_cpu();
  const Output past_caches = registers_are_lines<T>(isa, {args.gradient}, shape.width) ? Output::streamed : Output::staged;
  const Output output = 3 * map_bytes<T>(shape) < kCacheBytes ? Output::cached : past_caches;
  std::vector<double> plane_energy(shape.planes);
#pragma omp parallel num_threads(shape.threads)
  {
    LossRoom<T> room(Grid(shape), output, isa);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < shape.planes; ++plane)
      plane_energy[plane] = plane_loss<T, kWeighted, kGradient>(shape, args, plane, room);
    EDGEKD_ROWS(isa, stream_fence());
  }
  return std::accumulate(plane_energy.begin(), plane_energy.end(), 0.0);
}

template <typename T>
double loss(const edgekd_haar_shape& shape, const LossArguments<T>& args) {
  if (args.cell_weight) return args.gradient ? loss<T, true, true>(shape, args) : loss<T, true, false>(shape, args);
  return args.gradient ? loss<T, false, true>(shape, args) : loss<T, false, false>(shape, args);
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
                      float gradient_scale) {
  const edgekd::LossArguments<T> args{static_cast<const T*>(student), static_cast<const T*>(teacher), cell_weight,
                                      static_cast<T*>(gradient), channels, {low, high, gradient_scale}};
  return edgekd::loss(*shape, args);
}

extern "C" void edgekd_haar_loss(int dtype, const edgekd_haar_shape* shape, const void* student, const void* teacher,
                                 const float* cell_weight, int64_t channels, float low, float high, void* gradient,
                                 float gradient_scale, float* loss) {
  const auto run = dtype == EDGEKD_FLOAT32 ? loss_of<float> : dtype == EDGEKD_FLOAT16 ? loss_of<Half> : loss_of<BFloat16>;
  const double sum = run(shape, student, teacher, cell_weight, channels, low, high, gradient, gradient_scale);
  if (loss) *loss = static_cast<float>(sum);
}

extern "C" const char* edgekd_haar_instruction_set(void) {
  switch (edgekd::this_cpu()) {
    case edgekd::InstructionSet::avx512: return "avx512";
    case edgekd::InstructionSet::avx2: return "avx2";
    default: return "baseline";
  }
}
