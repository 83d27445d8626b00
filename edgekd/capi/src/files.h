// Files of a bundle: read once, and what is used are the bytes whose sha256 was compared.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"

namespace edgekd {

// Return what a file holds; false when it is not a plain file that can be read, or larger than `most_bytes`.
bool read_whole(const std::string& path, uint64_t most_bytes, std::string& content);

// Return what the link `folder` names now, so that all files come from one version; a plain folder as it is.
std::string settled(const std::string& folder);

// Read the files of a stage and compare them with the manifest. Fails with EDGEKD_ERROR_BUNDLE.
std::vector<std::string> read_files(const std::string& folder, const EngineStage& stage);

}  // namespace edgekd
