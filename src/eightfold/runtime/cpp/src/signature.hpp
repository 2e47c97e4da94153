// Purpose: who made a bundle: the Ed25519 signature of its manifest, checked with OpenSSL where this build
// has it. The same rules as in signature.py.
#pragma once

#include <string>

#include "store.hpp"

namespace eightfold::detail {

// Throws Error: `integrity` unless the key, a PEM file, signed `manifest`; `usage` where there is no such
// key, or this build cannot check signatures: what was asked for is never passed over.
void check_signature(const Store& store, const std::string& bundle, const std::string& manifest,
                     const std::string& public_key);

}  // namespace eightfold::detail
