#include "node.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

namespace edgekd {

namespace {

using Json = nlohmann::json;

// JsonValue is a name for the library's type, and has no members of its own.
const Json& json_of(const JsonValue* value) { return *reinterpret_cast<const Json*>(value); }
const JsonValue* handle(const Json& value) { return reinterpret_cast<const JsonValue*>(&value); }

bool is_printable(const std::string& words) {
    for (size_t i = 0; i < words.size(); i++) {
        const auto byte = static_cast<unsigned char>(words[i]);
        // C0, DEL, and C1, which UTF-8 writes as C2 80 to C2 9F.
        const bool c1 = byte == 0xC2 && i + 1 < words.size() && static_cast<unsigned char>(words[i + 1]) < 0xA0;
        if (byte < 0x20 || byte == 0x7F || c1) return false;
    }
    return true;
}

}  // namespace

Node Node::at(const char* key) const {
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (!has(key)) complain(path + " is missing");
    return Node(handle(json_of(value_)[key]), path, folder_);
}

Node Node::at(size_t index) const {
    return Node(handle(json_of(value_).at(index)), path_ + "." + std::to_string(index), folder_);
}

size_t Node::length(size_t low, size_t high) const {
    const Json& value = json_of(value_);
    if (!value.is_array() || value.size() < low || value.size() > high) {
        complain(path_ + " is not a list of " + std::to_string(low) + " to " + std::to_string(high) + " entries");
    }
    return value.size();
}

int64_t Node::integer(int64_t low, int64_t high) const {
    if (!json_of(value_).is_number_integer() || exceeds(high) || json_of(value_).get<int64_t>() < low) {
        complain(path_ + " is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return json_of(value_).get<int64_t>();
}

double Node::number() const {
    const Json& value = json_of(value_);
    if (!value.is_number() || !std::isfinite(value.get<double>())) complain(path_ + " is not a number");
    return value.get<double>();
}

std::string Node::text() const {
    if (!is_text()) complain(path_ + " is not text");
    return json_of(value_).get<std::string>();
}

std::string Node::choice(std::initializer_list<const char*> words) const {
    const std::string word = text();
    std::string expected;
    for (const char* one : words) {
        if (word == one) return word;
        expected += expected.empty() ? one : std::string(", ") + one;
    }
    complain(path_ + " is none of " + expected);
}

bool Node::boolean() const {
    if (!json_of(value_).is_boolean()) complain(path_ + " is neither true nor false");
    return json_of(value_).get<bool>();
}

void Node::only(std::initializer_list<const char*> names) const {
    for (const std::string& key : keys()) {
        const auto is_key = [&](const char* name) { return key == name; };
        if (std::none_of(names.begin(), names.end(), is_key)) {
            complain((path_.empty() ? "" : path_ + ".") + key.substr(0, 40) + " is unknown");
        }
    }
}

std::vector<std::string> Node::keys() const {
    const Json& value = json_of(value_);
    if (!value.is_object()) complain(path_ + " is not an object");
    std::vector<std::string> names;
    for (const auto& entry : value.items()) names.push_back(entry.key());
    return names;
}

bool Node::is_text() const { return json_of(value_).is_string(); }
bool Node::is_null() const { return json_of(value_).is_null(); }
bool Node::has(const char* key) const { return json_of(value_).is_object() && json_of(value_).contains(key); }

bool Node::exceeds(int64_t limit) const {
    const Json& value = json_of(value_);
    if (!value.is_number_integer()) return false;
    if (!value.is_number_unsigned()) return value.get<int64_t>() > limit;
    return limit < 0 || value.get<uint64_t>() > uint64_t(limit);
}

std::string Node::dump() const { return json_of(value_).dump(); }

std::shared_ptr<const JsonValue> parse_json(const std::string& text, const std::string& folder) {
    std::vector<std::set<std::string>> open_objects;
    std::string finding;
    const auto look = [&](int, Json::parse_event_t event, Json& value) {
        if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
        if (event == Json::parse_event_t::object_end) open_objects.pop_back();
        if (event == Json::parse_event_t::key && !open_objects.back().insert(value.get<std::string>()).second) {
            finding = "a name stands there twice";
        }
        const bool is_text = event == Json::parse_event_t::key || event == Json::parse_event_t::value;
        if (is_text && value.is_string() && !is_printable(value.get_ref<const std::string&>())) {
            finding = "a text with a control character";
        }
        return true;
    };
    // The library skips the mark, and takes a zero for the end.
    const bool marked = text.compare(0, 3, "\xEF\xBB\xBF") == 0 || text.find('\0') != std::string::npos;
    Json raw = marked ? Json(Json::value_t::discarded) : Json::parse(text, look, /*allow_exceptions=*/false);
    if (raw.is_discarded()) {
        fail(EDGEKD_ERROR_BUNDLE, folder + "/manifest.json is not JSON; build the bundle again");
    }
    if (!finding.empty()) {
        fail(EDGEKD_ERROR_BUNDLE,
             folder + "/manifest.json is not JSON that a bundle can have (" + finding + "); build the bundle again");
    }
    const auto kept = std::make_shared<const Json>(std::move(raw));
    return {kept, handle(*kept)};
}

}  // namespace edgekd
