#include "packing.hpp"

#include <algorithm>
#include <tuple>

namespace eightfold::detail {
namespace {

// The best way to pack some number of images, as a chain: the batch to add, and how many images are left
// after it.
struct Plan {
  int padding = 0;
  int calls = 0;
  int batch = 0;
};

std::vector<Plan> best_plans(int count, const std::vector<int>& batches) {
  std::vector<Plan> plans(static_cast<std::size_t>(count) + 1);
  for (int images = 1; images <= count; ++images) {
    Plan& best = plans[static_cast<std::size_t>(images)];
    for (const int batch : batches) {
      const Plan& before = plans[static_cast<std::size_t>(std::max(0, images - batch))];
      const Plan plan = {before.padding + std::max(0, batch - images), before.calls + 1, batch};
      if (best.batch == 0 || std::tie(plan.padding, plan.calls) < std::tie(best.padding, best.calls))
        best = plan;
    }
  }
  return plans;
}

}  // namespace

std::vector<int> pack(int count, const std::vector<int>& batches) {
  const int largest = *std::max_element(batches.begin(), batches.end());
  // Beyond the largest size squared, every count that can be reached can be reached with the largest size
  // first.
  const int whole =
      static_cast<int>(std::max<long long>(0, count - static_cast<long long>(largest) * largest)) / largest;
  std::vector<int> result(static_cast<std::size_t>(whole), largest);
  const std::vector<Plan> plans = best_plans(count - whole * largest, batches);
  for (int images = count - whole * largest; images > 0; images -= result.back()) {
    result.push_back(plans[static_cast<std::size_t>(images)].batch);
  }
  std::sort(result.rbegin(), result.rend());
  return result;
}

}  // namespace eightfold::detail
