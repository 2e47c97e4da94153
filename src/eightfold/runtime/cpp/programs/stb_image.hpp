// Purpose: stb_image (libstb-dev) with the formats that eightfold-run reads. The one place that includes it.
#pragma once

#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_PNM
#define STBI_NO_STDIO
#include <stb_image.h>
