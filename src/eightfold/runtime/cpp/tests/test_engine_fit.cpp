#include <doctest/doctest.h>

#include "eightfold/error.hpp"
#include "engine_fit.hpp"
#include "fixtures.hpp"

using namespace eightfold;

namespace {

Artifact engine_for(const std::string& version, const std::string& capability) {
  Artifact engine;
  engine.format = Format::engine;
  engine.variant = "pruned";
  engine.precision = Precision::fp16;
  engine.batch = 4;
  engine.path = "engines/b4.engine";
  engine.requirements = {{"tensorrt", version}, {"compute_capability", capability}};
  return engine;
}

}  // namespace

TEST_CASE("an engine of another version or GPU is refused with the command that builds it here") {
  const fixtures::Folder folder;
  fixtures::write_files(folder / "bundle", fixtures::bundle_files({1, 4}));
  const Bundle bundle = Bundle::open(folder / "bundle");
  const detail::EngineHost here = {"10.3.0", "8.7"};
  const auto message = [&](const Artifact& engine) {
    try {
      detail::check_engine_fits(bundle, engine, here);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::backend);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message(engine_for("10.3.0", "8.7")).empty());
  CHECK(message(engine_for("10.3.0.26", "8.7")).empty());  // builds of one release
  const std::string command =
      "eightfold-build " + (folder / "bundle") + "/onnx/b4.onnx -o b4.engine --precision fp16";
  CHECK(message(engine_for("10.7.0", "8.7")) ==
        "engine engines/b4.engine was built for tensorrt 10.7.0, and here is 10.3.0; allowed: engines built "
        "by this "
        "very version for this GPU; build it here: " +
            command);
  CHECK(message(engine_for("10.3.0", "7.2")).find("compute_capability 7.2, and here is 8.7") !=
        std::string::npos);
  Artifact other = engine_for("8.2.1", "8.7");
  other.variant = "baseline";  // the bundle has no graph of it
  CHECK(message(other).find("build it here: eightfold-build MODEL.onnx -o b4.engine") != std::string::npos);
}
