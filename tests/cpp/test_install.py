"""What is installed can be found and linked, from C++ and from C."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cpp.conftest import LIBRARY_VARIABLE

PROJECT = """\
cmake_minimum_required(VERSION 3.10)
project(consumer C CXX)
find_package(eightfold 0.1 REQUIRED)
foreach(language cpp c)
  add_executable(from_${language} main.${language})
  target_link_libraries(from_${language} eightfold::eightfold)
  target_compile_options(from_${language} PRIVATE -Wall -Wextra -Wpedantic -Werror)
endforeach()
set_target_properties(from_c PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
"""
FROM_CPP = """\
#include <cstdio>
#include "eightfold/eightfold.hpp"
static_assert(EIGHTFOLD_VERSION_MAJOR >= 0 && sizeof EIGHTFOLD_VERSION > 1, "the version header");
int main() {
  try {
    eightfold::Engine::load("nowhere");
  } catch (const eightfold::Error& error) {
    std::puts(error.what());
  }
}
"""
FROM_C = """\
#include <stdio.h>
#include "eightfold/eightfold.h"
int main(void) {
  eightfold_engine *engine = NULL;
  if (eightfold_engine_load("nowhere", NULL, &engine) == EIGHTFOLD_BUNDLE) puts(eightfold_last_error());
  return 0;
}
"""


def call(*words: object) -> str:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


def test_another_project_can_use_it(tmp_path: Path) -> None:
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        pytest.skip(f"{LIBRARY_VARIABLE} does not name a built libeightfold.so; run: make check-cpp")
    call("cmake", "--install", Path(library).parent, "--prefix", tmp_path / "installed")
    for name, text in {"CMakeLists.txt": PROJECT, "main.cpp": FROM_CPP, "main.c": FROM_C}.items():
        (tmp_path / name).write_text(text)
    call("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}")
    call("cmake", "--build", tmp_path / "build")
    for language in ("cpp", "c"):
        assert call(tmp_path / "build" / f"from_{language}").startswith("there is no bundle at 'nowhere'")
