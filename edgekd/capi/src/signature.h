// Signatures of bundles: Ed25519 in the format of minisign, over the bytes of manifest.json; see edgekd/signature.py.
#pragma once

#include <string>

namespace edgekd {

// Compare `content`, which was read from `path`, with the signature in the file `path`.minisig.
// `public_key` is the file of a public key, or its 56 letters.
// Fails with EDGEKD_ERROR_BUNDLE, with EDGEKD_ERROR_ARGUMENT for a key that cannot be read, and with
// EDGEKD_ERROR_BACKEND_UNAVAILABLE where this library was built without OpenSSL.
void verify_signature(const std::string& path, const std::string& content, const std::string& public_key);

}  // namespace edgekd
