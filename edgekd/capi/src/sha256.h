// SHA-256 (FIPS 180-4) of a file, so that a changed engine is refused before a backend reads it.
#pragma once

#include <string>

namespace edgekd {

// Return 64 hexadecimal digits; fails with EDGEKD_ERROR_BUNDLE when the file cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace edgekd
