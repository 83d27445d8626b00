// Structs that grow: what an older or newer caller passed becomes this version's struct, fully filled.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "error.h"

namespace edgekd {

// Copy the caller's struct over `defaults`, reading no byte beyond its struct_size.
// Fails with EDGEKD_ERROR_ARGUMENT when a newer caller sets a field that this library does not know.
template <typename Options>
Options options_from(const Options* given, Options defaults, const char* name) {
    static_assert(std::is_trivially_copyable<Options>::value, "options are plain C structs");
    if (given == nullptr) return defaults;
    const uint32_t size = given->struct_size;
    if (size < sizeof(uint32_t) || size > 1 << 16) {
        fail(EDGEKD_ERROR_ARGUMENT, std::string(name) + ".struct_size is " + std::to_string(size) +
                                        ", expected the sizeof; fill the struct with " + name + "_init first");
    }
    const char* bytes = reinterpret_cast<const char*>(given);
    for (uint32_t at = sizeof(Options); at < size; at++) {
        if (bytes[at] != 0) {
            fail(EDGEKD_ERROR_ARGUMENT, std::string(name) + " sets a field that libedgekd " EDGEKD_VERSION
                                            " does not know; update libedgekd or leave it 0");
        }
    }
    std::memcpy(&defaults, given, std::min<size_t>(size, sizeof(Options)));
    return defaults;
}

// Copy `source` into the caller's struct of `struct_size` bytes; what this library does not know becomes 0.
template <typename Struct>
void copy_out(const Struct& source, Struct* target, size_t struct_size) {
    std::memset(static_cast<void*>(target), 0, struct_size);
    std::memcpy(static_cast<void*>(target), &source, std::min(struct_size, sizeof(Struct)));
    target->struct_size = uint32_t(struct_size);
}

}  // namespace edgekd
