// SHA-256 (FIPS 180-4), so that a changed engine is refused before a backend sees it.
#pragma once

#include <string>

namespace edgekd {

// Return 64 hexadecimal digits.
std::string sha256_of(const std::string& content);

}  // namespace edgekd
