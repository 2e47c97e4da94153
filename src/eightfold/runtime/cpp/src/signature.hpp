// Purpose: who made a bundle: the Ed25519 signature of its manifest, checked with OpenSSL. The same rules as
// in signature.py.
#pragma once

#include <string>

#include "store.hpp"

namespace eightfold::detail {

// Throws Error: `integrity` unless the key, a PEM file, signed `manifest`; `usage` where there is no such
// key.
void check_signature(const Store& store, const std::string& bundle, const std::string& manifest,
                     const std::string& public_key);

}  // namespace eightfold::detail
