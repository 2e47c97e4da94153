// Purpose: the C++ interface in one include. See engine.hpp for an example.
#pragma once

#include "eightfold/bundle.hpp"
#include "eightfold/engine.hpp"
#include "eightfold/error.hpp"
#include "eightfold/image.hpp"
#include "eightfold/machine.hpp"
#include "eightfold/manifest.hpp"
#include "eightfold/prediction.hpp"
#include "eightfold/preprocess.hpp"
#include "eightfold/span.hpp"
#include "eightfold/version.hpp"
