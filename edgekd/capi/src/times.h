// Milliseconds of a run's stages.
#pragma once

#include <chrono>

namespace edgekd {

// 0 for a stage that did not run.
struct Times {
    double total = 0, detector_preprocess = 0, detector = 0, detector_postprocess = 0;
    double encoder_preprocess = 0, encoder = 0, decoder = 0, mask_postprocess = 0;
    double segmenter_preprocess = 0, segmenter = 0;
};

// Adds the time from its creation to its end to `total_ms`.
class Lap {
public:
    explicit Lap(double& total_ms) : total_ms_(total_ms), start_(Clock::now()) {}
    ~Lap() { total_ms_ += std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }
    Lap(const Lap&) = delete;
    Lap& operator=(const Lap&) = delete;

private:
    using Clock = std::chrono::steady_clock;
    double& total_ms_;
    Clock::time_point start_;
};

}  // namespace edgekd
