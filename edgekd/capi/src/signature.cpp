#include "signature.h"

#include "error.h"

#ifndef EDGEKD_HAVE_OPENSSL

void edgekd::verify_signature(const std::string& path, const std::string&, const std::string&) {
    fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE,
         "the signature of " + path + " is asked for and this libedgekd was built without OpenSSL; install it (on "
         "Debian: apt install libssl-dev) and build again with: edgekd capi build");
}

#else

#include <openssl/evp.h>

#include <memory>
#include <vector>

#include "files.h"

namespace edgekd {
namespace {

constexpr size_t kMostBytes = 4096;
constexpr size_t kAlgorithmBytes = 2, kNumberBytes = 8, kKeyBytes = 32, kSignatureBytes = 64;
constexpr size_t kKeyLetters = 56;

using Bytes = std::basic_string<unsigned char>;

Bytes bytes_of(const std::string& text) { return Bytes(text.begin(), text.end()); }

// Decode base64 of exactly `n` bytes; empty when it is something else.
Bytes decoded(const std::string& text, size_t n) {
    const size_t n_letters = (n + 2) / 3 * 4, n_padding = (3 - n % 3) % 3;
    if (text.size() != n_letters || text.find('=') != (n_padding > 0 ? n_letters - n_padding : std::string::npos)) {
        return {};
    }
    Bytes bytes(n + n_padding, 0);
    const Bytes letters = bytes_of(text);
    if (EVP_DecodeBlock(&bytes[0], letters.data(), int(n_letters)) != int(bytes.size())) return {};
    bytes.resize(n);
    return bytes;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        lines.push_back(text.substr(at, end - at));
        if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
        at = end + 1;
    }
    return lines;
}

// What follows `prefix` in a line; false when it begins otherwise.
bool after(const std::string& line, const std::string& prefix, std::string& rest) {
    if (line.compare(0, prefix.size(), prefix) != 0) return false;
    rest = line.substr(prefix.size());
    return true;
}

// Algorithm, number and key in one string, as a public key writes them.
Bytes key_of(const std::string& given) {
    std::string letters = given, text, comment;
    if (given.size() != kKeyLetters || given.compare(0, 2, "RW") != 0) {
        const bool read = read_whole(given, kMostBytes, text);
        const std::vector<std::string> lines = lines_of(text);
        letters = read && lines.size() == 2 && after(lines[0], "untrusted comment: ", comment) ? lines[1] : "";
    }
    const Bytes key = decoded(letters, kAlgorithmBytes + kNumberBytes + kKeyBytes);
    if (key.empty() || key.substr(0, kAlgorithmBytes) != bytes_of("Ed")) {
        fail(EDGEKD_ERROR_ARGUMENT, "public_key is '" + given.substr(0, 200) + "', which cannot be read, expected the "
                                    "file that edgekd new-key wrote, or its 56 letters");
    }
    return key;
}

bool fits(const Bytes& key, const Bytes& signature, const Bytes& content) {
    const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> owner(
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()), &EVP_PKEY_free);
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    return owner && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, owner.get()) == 1 &&
           EVP_DigestVerify(context.get(), signature.data(), signature.size(), content.data(), content.size()) == 1;
}

Bytes blake2b(const Bytes& content) {
    Bytes digest(EVP_MAX_MD_SIZE, 0);
    unsigned n = 0;
    if (EVP_Digest(content.data(), content.size(), &digest[0], &n, EVP_blake2b512(), nullptr) != 1) return {};
    digest.resize(n);
    return digest;
}

// Say what is wrong; empty when the signature is that of the key and the content.
std::string fault_of(const std::string& text, const Bytes& content, const Bytes& key) {
    const std::vector<std::string> lines = lines_of(text);
    std::string comment, trusted;
    if (lines.size() != 4 || !after(lines[0], "untrusted comment: ", comment) ||
        !after(lines[2], "trusted comment: ", trusted)) {
        return "it is not a signature of minisign";
    }
    const Bytes line = decoded(lines[1], kAlgorithmBytes + kNumberBytes + kSignatureBytes);
    const Bytes global = decoded(lines[3], kSignatureBytes);
    if (line.empty() || global.empty()) return "it is not a signature of minisign";
    const Bytes algorithm = line.substr(0, kAlgorithmBytes), signature = line.substr(kAlgorithmBytes + kNumberBytes);
    const bool hashed = algorithm == bytes_of("ED");
    if (!hashed && algorithm != bytes_of("Ed")) return "it is not a signature of minisign";
    if (line.substr(kAlgorithmBytes, kNumberBytes) != key.substr(kAlgorithmBytes, kNumberBytes)) {
        return "it is of another key";
    }
    const Bytes secret = key.substr(kAlgorithmBytes + kNumberBytes);
    const bool whole = fits(secret, signature, hashed ? blake2b(content) : content) &&
                       fits(secret, global, signature + bytes_of(trusted));
    return whole ? "" : "the signature is wrong";
}

}  // namespace

void verify_signature(const std::string& path, const std::string& content, const std::string& public_key) {
    const Bytes key = key_of(public_key);
    const std::string beside = path + ".minisig", folder = path.substr(0, path.rfind('/'));
    std::string text;
    if (!read_whole(beside, kMostBytes, text)) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " is not signed (no readable " + beside.substr(folder.size() + 1) +
                                      "); sign it with: edgekd sign " + folder);
    }
    const std::string fault = fault_of(text, bytes_of(content), key);
    if (!fault.empty()) {
        fail(EDGEKD_ERROR_BUNDLE, beside + " does not fit manifest.json and the key (" + fault +
                                      "); get the bundle again, or the public key of who signed it");
    }
}

}  // namespace edgekd

#endif
