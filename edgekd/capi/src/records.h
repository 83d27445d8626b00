// Parts of a manifest that several stages share, or that the C runtime checks and does not use.
#pragma once

#include "manifest.h"
#include "node.h"

namespace edgekd {

// One file of the bundle, by a plain name that cannot lead out of it.
EngineFile engine_file(const Node& node, const std::string& folder);

// Tensors cross a backend module as float32, crops as uint8; other types would be read as garbage.
void check_tensors(const Node& node, const char* type);

void check_source(const Node& node);

// What a manifest records of its making: versions, notes, the gate, the known answer.
void check_records(const Node& root, const std::string& folder);

}  // namespace edgekd
