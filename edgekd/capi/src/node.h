// A value of a JSON file and where it stands, so that every complaint names the place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "error.h"

namespace edgekd {

// A value as the JSON library holds it. Only node.cpp looks inside: whoever includes that library compiles for seconds.
struct JsonValue;

class Node {
public:
    Node(const JsonValue* value, std::string path, const std::string& folder)
        : value_(value), path_(std::move(path)), folder_(folder) {}

    Node at(const char* key) const;
    Node at(size_t index) const;
    size_t length(size_t low, size_t high) const;
    int64_t integer(int64_t low, int64_t high) const;
    double number() const;
    std::string text() const;
    std::string choice(std::initializer_list<const char*> words) const;
    bool boolean() const;

    // Refuse names that no manifest has: a reader that skips what it does not know may skip what matters.
    void only(std::initializer_list<const char*> names) const;

    // The names of an object whose names are free.
    std::vector<std::string> keys() const;

    bool is_text() const;
    bool is_null() const;
    bool has(const char* key) const;
    bool given(const char* key) const { return has(key) && !at(key).is_null(); }

    // Whether the value is a whole number above `limit`; any other value is not.
    bool exceeds(int64_t limit) const;

    // The value as JSON text.
    std::string dump() const;

    [[noreturn]] void complain(const std::string& finding) const {
        fail(EDGEKD_ERROR_BUNDLE, folder_ + "/manifest.json does not describe a bundle (" + finding + "); build it again");
    }

private:
    const JsonValue* value_;
    std::string path_;
    const std::string& folder_;
};

// Parse the text of a manifest as edgekd/files.py does. Fails with EDGEKD_ERROR_BUNDLE: it is not JSON, begins with a mark of
// byte order, holds a zero, has a name twice, or a text with control characters.
std::shared_ptr<const JsonValue> parse_json(const std::string& text, const std::string& folder);

}  // namespace edgekd
