#include "signature.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "eightfold/error.hpp"
#include "json_reader.hpp"

namespace eightfold::detail {
namespace {

constexpr const char* kSignatureName = "manifest.sig";
constexpr std::uint64_t kSignatureLimitBytes = 4096;

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Context = std::unique_ptr<EVP_MD_CTX, Freed<EVP_MD_CTX_free>>;
using Stream = std::unique_ptr<std::FILE, Freed<std::fclose>>;

Key read_key(const std::string& path) {
  const Stream stream(std::fopen(path.c_str(), "rbe"));
  if (!stream) throw Error(ErrorCode::usage, "cannot read the key " + path, "a PEM file");
  Key key(PEM_read_PUBKEY(stream.get(), nullptr, nullptr, nullptr));
  if (!key || EVP_PKEY_id(key.get()) != EVP_PKEY_ED25519)
    throw Error(ErrorCode::usage, path + " holds no public Ed25519 key", "a PEM file, as by: eightfold sign");
  return key;
}

[[noreturn]] void not_a_signature(const std::string& bundle) {
  throw Error(ErrorCode::bundle, bundle + ": " + kSignatureName + " holds no ed25519 signature",
              "a file by `eightfold sign`");
}

std::vector<std::uint8_t> bytes_of_hex(const std::string& text, const std::string& bundle) {
  if (text.size() % 2 != 0 || text.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    not_a_signature(bundle);
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::vector<std::uint8_t> read_signature(const Store& store, const std::string& bundle) {
  if (store.size(kSignatureName) > kSignatureLimitBytes) not_a_signature(bundle);
  const std::vector<std::uint8_t> data = store.read(kSignatureName);
  const nlohmann::json record = parse_json({data.begin(), data.end()}, bundle + ": " + kSignatureName);
  const JsonNode node(record, bundle + ": " + kSignatureName);
  if (node.at("algorithm").string() != "ed25519") not_a_signature(bundle);
  return bytes_of_hex(node.at("signature").string(), bundle);
}

bool verifies(const Key& key, const std::vector<std::uint8_t>& signature, const std::string& text) {
  const Context context(EVP_MD_CTX_new());
  return context != nullptr &&
         EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size()) == 1;
}

}  // namespace

void check_signature(const Store& store, const std::string& bundle, const std::string& manifest,
                     const std::string& public_key) {
  const Key key = read_key(public_key);
  if (!store.has(kSignatureName)) {
    throw Error(ErrorCode::integrity, bundle + " is not signed", "a bundle signed by the key " + public_key,
                "ask who made it for a signed one");
  }
  if (!verifies(key, read_signature(store, bundle), manifest)) {
    throw Error(ErrorCode::integrity, bundle + " was signed by another key, or changed after it was signed",
                "a manifest signed by " + public_key + " and not changed since",
                "get the bundle again from who made it, and check that this is their key");
  }
}

}  // namespace eightfold::detail
