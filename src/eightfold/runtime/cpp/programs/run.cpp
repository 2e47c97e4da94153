// eightfold-run: predict images with a bundle, or time it. For boards whose Python is too old, and for
// scripts.
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "bench.hpp"
#include "eightfold/engine.hpp"
#include "eightfold/version.hpp"
#include "image_file.hpp"
#include "output.hpp"

namespace {

constexpr const char* kHelp =
    "usage: eightfold-run BUNDLE IMAGE... [--json FILE]     predict JPEG, PNG, PPM, PGM or .npy images\n"
    "       eightfold-run BUNDLE --bench [--seconds 4] [--json FILE]\n"
    "       eightfold-run --backends                        what this build can run\n"
    "\n"
    "  --backend NAME          onnxruntime or tensorrt; by default the best there is\n"
    "  --precision NAME        fp32, fp16 or int8\n"
    "  --variant NAME          which network of the bundle: pruned, baseline, ...\n"
    "  --provider NAME         of onnxruntime: cpu, cuda or tensorrt\n"
    "  --batch N               only this batch size\n"
    "  --size SIZE             only this size of images: SIDE or HEIGHTxWIDTH; by default what the bundle "
    "prefers\n"
    "  --threads N             of a CPU back end\n"
    "  --preprocess-threads N  that share the images of a request\n"
    "  --device N              number of the accelerator\n"
    "  --key FILE              public key that must have signed the bundle\n"
    "  --seconds S             timed, per row of the table\n"
    "  --json FILE             write the answer there as JSON; - for standard output\n";

eightfold::EngineOptions options_from(const programs::Arguments& arguments) {
  eightfold::EngineOptions options;
  options.backend = arguments.text("--backend", options.backend);
  options.precision = arguments.text("--precision", options.precision);
  options.variant = arguments.text("--variant", options.variant);
  options.provider = arguments.text("--provider", options.provider);
  options.batch = arguments.whole("--batch", options.batch);
  const eightfold::Size size = arguments.size("--size");
  options.height = size.height;
  options.width = size.width;
  options.threads = arguments.whole("--threads", options.threads);
  options.preprocess_threads = arguments.whole("--preprocess-threads", options.preprocess_threads);
  options.device = arguments.whole("--device", options.device);
  options.public_key = arguments.text("--key", options.public_key);
  return options;
}

void write_json(const nlohmann::json& document, const std::string& path) {
  const std::string text = document.dump(1) + "\n";
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return;
  }
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary);
  file << text;
  file.close();  // a full disk may show only here
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw eightfold::Error(eightfold::ErrorCode::usage, "cannot write " + path, "a writable place");
  }
}

// Refuses, before the work and not behind it, a file that is read, and a folder.
void check_json(const programs::Arguments& arguments) {
  const std::string path = arguments.text("--json", "-");
  struct stat json = {};
  if (path == "-" || stat(path.c_str(), &json) != 0) return;
  const auto refuse = [&](const char* why) {
    throw eightfold::Error(eightfold::ErrorCode::usage, "cannot write " + path + ": " + why,
                           "the name of a file, new or of answers");
  };
  if (S_ISDIR(json.st_mode)) refuse("it is a directory");
  for (const std::string& read : arguments.positional()) {
    struct stat other = {};
    if (stat(read.c_str(), &other) != 0) continue;
    if (other.st_dev == json.st_dev && other.st_ino == json.st_ino) refuse("it is read here");
  }
}

int list_backends() {
  for (const eightfold::BackendInfo& info : eightfold::backends()) {
    std::printf("%s %s%s%s\n", info.name.c_str(), info.version.c_str(), info.absent.empty() ? "" : ": ",
                info.absent.c_str());
  }
  return 0;
}

int run_bench(const programs::Arguments& arguments) {
  programs::BenchOptions options;
  options.path = arguments.positional()[0];
  options.engine = options_from(arguments);
  options.seconds = arguments.number("--seconds", options.seconds);
  const nlohmann::json table = programs::bench(options);
  if (arguments.text("--json", "") != "-") std::fputs(programs::table_of(table).c_str(), stdout);
  if (arguments.has("--json")) write_json(table, arguments.text("--json", "-"));
  return 0;
}

int predict(const programs::Arguments& arguments) {
  const std::vector<std::string> paths(arguments.positional().begin() + 1, arguments.positional().end());
  const eightfold::Engine engine =
      eightfold::Engine::load(arguments.positional()[0], options_from(arguments));
  const bool as_stored = engine.preprocessing().color == eightfold::Color::as_is;
  nlohmann::json answers = nlohmann::json::object();
  for (const std::string& path : paths) {
    const programs::Image image = programs::read_image(path, as_stored);
    const eightfold::Prediction prediction = engine.run({image.view()})[0];
    if (arguments.has("--json")) {
      answers[path] = programs::json_of(engine, prediction);
    } else {
      std::printf("%s: %s\n", path.c_str(), programs::line_of(engine, prediction).c_str());
    }
  }
  if (arguments.has("--json")) write_json(answers, arguments.text("--json", "-"));
  return 0;
}

int body(int count, char** words) {
  const programs::Arguments arguments(
      count, words,
      {"--backend", "--precision", "--variant", "--provider", "--batch", "--size", "--threads",
       "--preprocess-threads", "--device", "--key", "--seconds", "--json"},
      {"--bench", "--backends", "--help", "-h", "--version"});
  if (arguments.has("--version")) return std::printf("eightfold %s\n", EIGHTFOLD_VERSION) < 0 ? 1 : 0;
  if (arguments.has("--backends")) return list_backends();
  const bool complete = arguments.positional().size() > (arguments.has("--bench") ? 0 : 1);
  if (arguments.has("--help") || arguments.has("-h") || !complete) {
    std::fputs(kHelp, complete || count < 2 || arguments.has("--help") ? stdout : stderr);
    return complete || arguments.has("--help") || arguments.has("-h") ? 0 : 2;
  }
  check_json(arguments);
  return arguments.has("--bench") ? run_bench(arguments) : predict(arguments);
}

}  // namespace

int main(int count, char** words) { return programs::guarded("eightfold-run", body, count, words); }
