#include "eightfold/manifest.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "json_reader.hpp"

namespace eightfold {
namespace {

using detail::JsonNode;

constexpr std::int64_t kSchema = 1;
constexpr std::int64_t kLargestBatch = 1 << 16;
constexpr std::int64_t kLargestTensor = std::int64_t{1} << 32;
constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;

std::string string_from(const JsonNode& node) { return node.string(); }

std::vector<double> per_channel_from(const JsonNode& node, const Preprocess& preprocess) {
  const int channels = preprocess.channels();
  std::vector<double> values = node.each<double>([](const JsonNode& item) { return item.number(); });
  if (values.empty()) node.fail("empty", "1 or " + std::to_string(channels) + " numbers");
  const bool equal =
      std::all_of(values.begin(), values.end(), [&](double each) { return each == values[0]; });
  const int size = static_cast<int>(values.size());
  // Of grey images three equal ones are the default.
  if (equal && (size == 1 || size == channels || (preprocess.color == Color::grey && size == 3)))
    return {values[0]};
  if (size != channels) {
    node.fail(std::to_string(values.size()) + " entries long",
              "1 or " + std::to_string(channels) + " entries");
  }
  return values;
}

int side_from(const JsonNode& node, std::int64_t least) {
  return static_cast<int>(node.integer(least, kLargestSide));
}

void check_kind(const JsonNode& node, const std::string& kind) {
  if (node.has("kind") && node.at("kind").string() != kind) {
    node.at("kind").fail("'" + node.at("kind").string() + "'", kind);
  }
  if (!node.has("schema")) return;
  const JsonNode schema = node.at("schema");
  if (!schema.json().is_number_integer() || schema.json() != kSchema)
    schema.fail(schema.json().dump(), "schema " + std::to_string(kSchema));
}

// The defaults are those of Preprocess: a key may be absent.
void read_geometry(const JsonNode& node, Preprocess& result) {
  result.height = side_from(node.at("height"), 1);
  result.width = side_from(node.at("width"), 1);
  if (node.has("resize")) {
    result.resize = node.at("resize").one_of<Resize>({{"stretch", Resize::stretch},
                                                      {"letterbox", Resize::letterbox},
                                                      {"center-crop", Resize::center_crop}});
  }
  if (node.has("interpolation")) {
    result.interpolation = node.at("interpolation")
                               .one_of<Interpolation>({{"bilinear", Interpolation::bilinear},
                                                       {"area", Interpolation::area},
                                                       {"bicubic", Interpolation::bicubic}});
  }
  if (node.has("antialias")) result.antialias = node.at("antialias").boolean();
  if (node.has("anchor")) {
    result.anchor =
        node.at("anchor").one_of<Anchor>({{"center", Anchor::center}, {"top-left", Anchor::top_left}});
  }
  if (node.has("shorter_side") && !node.at("shorter_side").is_null()) {
    result.shorter_side = side_from(node.at("shorter_side"), std::max(result.height, result.width));
  }
}

// The color follows from the number of channels where it is not given, and the other way round.
void read_pixels(const JsonNode& node, Preprocess& result) {
  const int given =
      node.has("channels") ? static_cast<int>(node.at("channels").integer(1, kMostChannels)) : 0;
  if (given != 0) result.color = given == 1 ? Color::grey : given == 3 ? Color::rgb : Color::as_is;
  if (node.has("color")) {
    result.color = node.at("color").one_of<Color>(
        {{"rgb", Color::rgb}, {"bgr", Color::bgr}, {"grey", Color::grey}, {"as-is", Color::as_is}});
  }
  if (result.color == Color::as_is) {
    if (given == 0) node.at("color").fail("as-is without channels", "channels, how many there are");
    result.stored_channels = given;
  } else if (given != 0 && given != result.channels()) {
    node.at("channels")
        .fail(std::to_string(given), std::to_string(result.channels()) + ", for this color, or color as-is");
  }
  if (node.has("pixels")) {
    result.pixels =
        node.at("pixels").one_of<PixelType>({{"uint8", PixelType::uint8}, {"uint16", PixelType::uint16}});
  }
  if (node.has("pad_value"))
    result.pad_value = static_cast<int>(node.at("pad_value").integer(0, result.largest_pixel()));
}

// By the rules of eightfold.calib.images.normalization: faults that no training can have meant.
void check_normalization(const JsonNode& node, const Preprocess& result) {
  const auto largest = [](const std::vector<double>& values) {
    return std::abs(*std::max_element(values.begin(), values.end(),
                                      [](double a, double b) { return std::abs(a) < std::abs(b); }));
  };
  const double reach = std::abs(result.scale) * result.largest_pixel();
  const double mean = largest(result.mean);
  const double std = largest(result.std);
  if (result.scale == 0) node.fail("with scale 0", "1/255 and other numbers");
  if (std::any_of(result.std.begin(), result.std.end(), [](double each) { return each <= 0; }))
    node.fail("with std that is not positive", "positive numbers");
  const bool of_scaled = reach >= 128 && 0 < mean && mean <= 1 && std < 1;
  if (mean > 1.001 * reach || std > 4 * reach || of_scaled)
    node.fail("with mean or std in another unit than its pixels", "those of pixels times scale");
}

void read_values(const JsonNode& node, Preprocess& result) {
  read_pixels(node, result);
  result.scale = node.has("scale") ? node.at("scale").number() : 1.0 / result.largest_pixel();
  if (node.has("mean")) result.mean = per_channel_from(node.at("mean"), result);
  if (node.has("std")) result.std = per_channel_from(node.at("std"), result);
  check_normalization(node, result);
  if (node.has("layout")) {
    result.layout = node.at("layout").one_of<Layout>({{"nchw", Layout::nchw}, {"nhwc", Layout::nhwc}});
  }
  if (node.has("dtype")) result.bytes = node.at("dtype").one_of<bool>({{"float32", false}, {"uint8", true}});
  if (result.bytes && result.pixels == PixelType::uint16)
    node.at("dtype").fail("uint8 for pixels of 16 bits", "float32");
}

Preprocess preprocess_from(const JsonNode& node) {
  check_kind(node, "preprocess");
  node.allow_keys({"kind", "schema", "height", "width", "resize", "interpolation", "antialias", "anchor",
                   "pad_value", "shorter_side", "color", "channels", "pixels", "scale", "mean", "std",
                   "layout", "dtype"});
  Preprocess result;
  read_geometry(node, result);
  read_values(node, result);
  return result;
}

TensorSpec tensor_from(const JsonNode& node) {
  node.allow_keys({"name", "dtype", "shape"});
  TensorSpec tensor;
  tensor.name = node.at("name").string();
  tensor.type = node.at("dtype").one_of<DataType>({{"float32", DataType::float32},
                                                   {"float16", DataType::float16},
                                                   {"uint8", DataType::uint8},
                                                   {"int8", DataType::int8},
                                                   {"int32", DataType::int32},
                                                   {"int64", DataType::int64},
                                                   {"bool", DataType::boolean}});
  std::int64_t left = kLargestTensor;
  for (const JsonNode& side : node.at("shape").items()) {
    tensor.shape.push_back(side.integer(0, left));
    left /= std::max<std::int64_t>(tensor.shape.back(), 1);
  }
  return tensor;
}

void read_tensors(const JsonNode& node, Artifact& artifact) {
  artifact.inputs = node.at("inputs").each<TensorSpec>(tensor_from);
  artifact.outputs = node.at("outputs").each<TensorSpec>(tensor_from);
  if (artifact.inputs.empty() || artifact.outputs.empty())
    node.fail("without inputs or outputs", "one of each or more");
}

// What no runtime needs is held to its types all the same, so that every reader accepts the same manifests.

void check_optional_number(const JsonNode& node, const std::string& key) {
  if (node.has(key) && !node.at(key).is_null()) node.at(key).number();
}

void check_metric(const JsonNode& node) {
  node.allow_keys({"name", "value", "data", "images"});
  node.at("name").string();
  node.at("value").number();
  node.at("data").string();
  node.at("images").integer(0, kExactInDouble);
}

void check_step(const JsonNode& node) {
  node.allow_keys({"name", "tool", "max_abs_error", "max_rel_error", "cosine", "seconds", "notes"});
  node.at("name").string();
  if (node.has("tool")) node.at("tool").string();
  for (const char* key : {"max_abs_error", "max_rel_error", "cosine", "seconds"})
    check_optional_number(node, key);
  if (node.has("notes")) node.at("notes").each<std::string>(string_from);
}

void check_history(const JsonNode& node) {
  if (node.has("metrics")) {
    for (const JsonNode& metric : node.at("metrics").items()) check_metric(metric);
  }
  if (node.has("steps")) {
    for (const JsonNode& step : node.at("steps").items()) check_step(step);
  }
  if (node.has("layers")) {
    for (const auto& [precision, count] : node.at("layers").members())
      count.integer(-kExactInDouble, kExactInDouble);
  }
  if (node.has("deterministic")) node.at("deterministic").boolean();
}

Artifact artifact_from(const JsonNode& node) {
  node.allow_keys({"id", "variant", "format", "precision", "target", "batch", "path", "files", "inputs",
                   "outputs", "metrics", "steps", "requires", "layers", "deterministic"});
  Artifact artifact;
  artifact.id = node.at("id").string();
  artifact.variant = node.at("variant").string();
  artifact.format = node.at("format").one_of<Format>(
      {{"onnx", Format::onnx}, {"engine", Format::engine}, {"openvino", Format::openvino}});
  artifact.precision = node.at("precision")
                           .one_of<Precision>({{"fp32", Precision::fp32},
                                               {"fp16", Precision::fp16},
                                               {"bf16", Precision::bf16},
                                               {"int8", Precision::int8}});
  artifact.target = node.at("target").string();
  artifact.batch = static_cast<int>(node.at("batch").integer(1, kLargestBatch));
  artifact.path = node.at("path").string();
  if (node.has("files")) artifact.files = node.at("files").each<std::string>(string_from);
  read_tensors(node, artifact);
  if (node.has("requires")) {
    for (const auto& [key, value] : node.at("requires").members())
      artifact.requirements[key] = value.string();
  }
  check_history(node);
  return artifact;
}

Task task_from(const JsonNode& node) {
  node.allow_keys({"kind", "decode", "labels", "options"});
  Task task;
  task.kind = node.at("kind").one_of<std::string>({{"classify", "classify"},
                                                   {"detect", "detect"},
                                                   {"segment", "segment"},
                                                   {"matte", "matte"},
                                                   {"tensors", "tensors"}});
  task.decode = node.at("decode").string();
  if (node.has("labels")) task.labels = node.at("labels").each<std::string>(string_from);
  task.options = "{}";
  if (node.has("options")) {
    node.at("options").members();  // an object
    task.options = node.at("options").json().dump();
  }
  return task;
}

bool is_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

FileEntry file_from(const JsonNode& node) {
  node.allow_keys({"bytes", "sha256"});
  FileEntry entry;
  entry.bytes = static_cast<std::uint64_t>(node.at("bytes").integer(0, kExactInDouble));
  entry.sha256 = node.at("sha256").string();
  if (!is_digest(entry.sha256)) node.at("sha256").fail("'" + entry.sha256 + "'", "64 lower-case hex digits");
  return entry;
}

void check_ids(const std::vector<Artifact>& artifacts, const JsonNode& root) {
  std::set<std::string> ids;
  for (const Artifact& artifact : artifacts) {
    if (!ids.insert(artifact.id).second)
      root.at("artifacts").fail("with two of the id '" + artifact.id + "'", "each id once");
  }
}

Manifest manifest_from(const JsonNode& root) {
  root.at("kind");
  root.at("schema");
  check_kind(root, "bundle manifest");
  root.allow_keys(
      {"kind", "schema", "name", "task", "preprocess", "artifacts", "files", "documents", "provenance"});
  Manifest manifest;
  manifest.name = root.at("name").string();
  manifest.task = task_from(root.at("task"));
  manifest.preprocess = preprocess_from(root.at("preprocess"));
  manifest.artifacts = root.at("artifacts").each<Artifact>(artifact_from);
  check_ids(manifest.artifacts, root);
  for (const auto& [name, node] : root.at("files").members()) manifest.files[name] = file_from(node);
  if (root.has("documents")) {
    for (const auto& [role, node] : root.at("documents").members()) manifest.documents[role] = node.string();
  }
  if (root.has("provenance")) root.at("provenance").members();  // an object
  return manifest;
}

}  // namespace

std::size_t bytes_of(DataType type) {
  switch (type) {
    case DataType::float32:
    case DataType::int32:
      return 4;
    case DataType::float16:
      return 2;
    case DataType::int64:
      return 8;
    default:
      return 1;
  }
}

const char* name_of(DataType type) {
  switch (type) {
    case DataType::float32:
      return "float32";
    case DataType::float16:
      return "float16";
    case DataType::uint8:
      return "uint8";
    case DataType::int8:
      return "int8";
    case DataType::int32:
      return "int32";
    case DataType::int64:
      return "int64";
    default:
      return "bool";
  }
}

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::fp16:
      return "fp16";
    case Precision::bf16:
      return "bf16";
    case Precision::int8:
      return "int8";
    default:
      return "fp32";
  }
}

std::size_t TensorSpec::elements() const {
  std::size_t count = 1;
  for (const std::int64_t side : shape) count *= static_cast<std::size_t>(side);
  return count;
}

Manifest manifest_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json document = detail::parse_json(text, source);
  return manifest_from(JsonNode(document, source));
}

}  // namespace eightfold
