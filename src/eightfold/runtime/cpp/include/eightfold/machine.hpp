// Purpose: what of a machine decides how fast a network runs on it, read as eightfold.describe_device in
// Python reads it. A bundle's latency table counts where it was measured on a machine like this one.
#pragma once

#include <string>
#include <vector>

#include "eightfold/export.h"

namespace eightfold {

struct Machine {
  std::string cpu;         // "Intel(R) Xeon(R) Processor", "6 x Cortex-A78AE"
  int cores = 0;           // logical ones that this process may run on; 0 where the kernel does not tell
  double quota_cores = 0;  // the container's CPU limit; 0 where it has none
  std::string board;       // of the device tree: "NVIDIA Jetson Orin Nano Developer Kit"; empty on a PC
  std::vector<std::string> gpus;  // names, of those that the NVIDIA driver for PCs and servers shows
};

// Reads /proc and /sys below `root`. Never fails: what cannot be read stays empty.
EIGHTFOLD_EXPORT Machine describe_machine(const std::string& root = "/");

// The same processor, cores, and board; on a PC the same GPUs too. (A board's GPU is part of it, and
// nvidia-smi shows it on some systems only.)
EIGHTFOLD_EXPORT bool alike(const Machine& a, const Machine& b);

}  // namespace eightfold
