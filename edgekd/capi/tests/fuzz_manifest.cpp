// libFuzzer: any bytes as manifest.json give a manifest or a sentence, never a crash.
#include <string>

#include "error.h"
#include "manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const edgekd::Manifest manifest = edgekd::parse_manifest(std::string(data, data + size), "bundle");
        if (manifest.detector.files.empty() || manifest.max_boxes < 1) __builtin_trap();
    } catch (const edgekd::Error& error) {
        if (error.status() != EDGEKD_ERROR_BUNDLE || *error.what() == '\0') __builtin_trap();
    }
    return 0;
}
