// A value of a JSON file and where it stands, so that every complaint names the place.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "error.h"

namespace edgekd {

using Json = nlohmann::json;

class Node {
public:
    Node(const Json& value, std::string path, const std::string& folder)
        : value_(value), path_(std::move(path)), folder_(folder) {}

    Node at(const char* key) const {
        const auto found = value_.is_object() ? value_.find(key) : value_.end();
        const std::string path = path_.empty() ? key : path_ + "." + key;
        if (!value_.is_object() || found == value_.end()) complain(path + " is missing");
        return Node(*found, path, folder_);
    }

    Node at(size_t index) const { return Node(value_.at(index), path_ + "." + std::to_string(index), folder_); }

    size_t length(size_t low, size_t high) const {
        if (!value_.is_array() || value_.size() < low || value_.size() > high) {
            complain(path_ + " is not a list of " + std::to_string(low) + " to " + std::to_string(high) + " entries");
        }
        return value_.size();
    }

    int64_t integer(int64_t low, int64_t high) const {
        const bool fits = value_.is_number_unsigned() ? value_.get<uint64_t>() <= uint64_t(high)
                                                      : value_.is_number_integer() && value_.get<int64_t>() <= high;
        if (!fits || value_.get<int64_t>() < low) {
            complain(path_ + " is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
        }
        return value_.get<int64_t>();
    }

    double number() const {
        if (!value_.is_number() || !std::isfinite(value_.get<double>())) complain(path_ + " is not a number");
        return value_.get<double>();
    }

    std::string text() const {
        if (!value_.is_string()) complain(path_ + " is not text");
        return value_.get<std::string>();
    }

    std::string choice(std::initializer_list<const char*> words) const {
        const std::string word = text();
        std::string expected;
        for (const char* one : words) {
            if (word == one) return word;
            expected += expected.empty() ? one : std::string(", ") + one;
        }
        complain(path_ + " is none of " + expected);
    }

    bool boolean() const {
        if (!value_.is_boolean()) complain(path_ + " is neither true nor false");
        return value_.get<bool>();
    }

    // Refuse names that no manifest has: a reader that skips what it does not know may skip what matters.
    void only(std::initializer_list<const char*> names) const {
        if (!value_.is_object()) complain(path_ + " is not an object");
        for (const auto& entry : value_.items()) {
            const auto is_key = [&](const char* name) { return entry.key() == name; };
            if (std::none_of(names.begin(), names.end(), is_key)) {
                complain((path_.empty() ? "" : path_ + ".") + entry.key().substr(0, 40) + " is unknown");
            }
        }
    }

    // Look at every value of an object whose names are free.
    template <typename Look>
    void each(Look&& look) const {
        if (!value_.is_object()) complain(path_ + " is not an object");
        for (const auto& entry : value_.items()) look(at(entry.key().c_str()));
    }

    bool is_text() const { return value_.is_string(); }
    bool is_null() const { return value_.is_null(); }
    bool has(const char* key) const { return value_.is_object() && value_.contains(key); }
    bool given(const char* key) const { return has(key) && !at(key).is_null(); }

    [[noreturn]] void complain(const std::string& finding) const {
        fail(EDGEKD_ERROR_BUNDLE, folder_ + "/manifest.json does not describe a bundle (" + finding + "); build it again");
    }

private:
    const Json& value_;
    std::string path_;
    const std::string& folder_;
};

// Parse the text of a manifest as edgekd/files.py does. Fails with EDGEKD_ERROR_BUNDLE: it is not JSON, begins with a mark of
// byte order, holds a zero, has a name twice, or a text with control characters.
Json parse_json(const std::string& text, const std::string& folder);

}  // namespace edgekd
