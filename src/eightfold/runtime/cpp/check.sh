#!/usr/bin/env bash
# Builds and tests the C++ runtime. Installs what it needs from Debian and the package index when absent.
#
#   check.sh            format, release build, parity with Python, sanitizers, a short fuzzing run
#   check.sh STEP...    some of: release parity camera asan tsan fuzz tidy format arm64 bench
#
# PYTHON names an interpreter with eightfold's test dependencies (default: .venv/bin/python of this repository).
# Everything is built below build/cpp of the repository.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
export PYTHON=${PYTHON:-$root/.venv/bin/python}
build=$root/build/cpp
ort=$root/build/cpp-deps/onnxruntime
jobs=$(nproc)

need() { # header or program, Debian package
    [ -e "$1" ] || command -v "$1" > /dev/null || missing+=("$2")
}

install_missing() {
    [ ${#missing[@]} -eq 0 ] && return
    echo "check.sh: installing ${missing[*]}"
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

prepare() {
    missing=()
    need cmake cmake
    need ninja ninja-build
    need g++ g++
    need /usr/include/nlohmann/json.hpp nlohmann-json3-dev
    need /usr/include/openssl/evp.h libssl-dev
    need /usr/include/zlib.h zlib1g-dev
    need /usr/include/stb/stb_image.h libstb-dev
    need /usr/include/doctest/doctest.h doctest-dev
    for step in "$@"; do
        case $step in
            fuzz)
                need clang++ clang
                need "$(ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a 2> /dev/null | head -n 1)" \
                    libclang-rt-dev
                ;;
            tidy) need clang-tidy clang-tidy ;;
            format) need clang-format clang-format ;;
            arm64)
                need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
                need qemu-aarch64-static qemu-user-static
                ;;
        esac
    done
    install_missing
    "$here/deps.sh" "$ort" > /dev/null
}

configure_and_build() { # folder, cmake options
    local folder=$1
    shift
    cmake -S "$here" -B "$build/$folder" -G Ninja -DONNXRUNTIME_ROOT="$ort" "$@" > "$build/$folder.log" 2>&1 ||
        { cat "$build/$folder.log"; return 1; }
    cmake --build "$build/$folder" -j "$jobs"
}

release() { configure_and_build release -DCMAKE_BUILD_TYPE=Release -DEIGHTFOLD_EXAMPLES=ON; }

# For benchmarks/cpp_runtime.py.
bench() {
    release
    configure_and_build bench -DCMAKE_BUILD_TYPE=Release -DEIGHTFOLD_BENCHMARKS=ON -DEIGHTFOLD_PROGRAMS=OFF
}

parity() {
    release
    camera
    (cd "$root" && EIGHTFOLD_CPP_LIBRARY=$build/release/libeightfold.so "$PYTHON" -m pytest -q -p no:cacheprovider tests/cpp)
}

# The example that needs OpenCV is compiled against Debian's headers, and not linked: that would take 80 packages.
camera() {
    local headers
    headers=$("$here/deps.sh" "$root/build/cpp-deps/opencv" opencv) ||
        { echo "check.sh: the camera example is not compiled: no headers of OpenCV"; return 0; }
    g++ -std=c++17 -fsyntax-only -Wall -Wextra -Werror -I"$here/include" -I"$build/release/include" -isystem "$headers/include" \
        "$here/examples/camera.cpp"
}

# -O1 without debug information: they are compiled in half the time, and still name the function at fault.
sanitized() { # folder, sanitizers
    configure_and_build "$1" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1" -DEIGHTFOLD_TESTS=ON \
        -DEIGHTFOLD_PROGRAMS=OFF -DEIGHTFOLD_SANITIZE="$2"
}

asan() {
    sanitized asan address,undefined
    ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 "$build/asan/tests/eightfold-tests"
}

# ONNX Runtime is not built with the sanitizer, so that its own synchronisation looks like races, and what its destructors
# do to its mutexes at exit like mistakes. Newer kernels place
# memory where GCC's sanitizer does not expect it, unless told not to.
tsan() {
    sanitized tsan thread
    printf '%s\n' called_from_lib:libonnxruntime.so mutex:__run_exit_handlers > "$build/tsan.suppressions"
    TSAN_OPTIONS="suppressions=$build/tsan.suppressions" setarch "$(uname -m)" -R "$build/tsan/tests/eightfold-tests" \
        --test-case='*thread*,*pool*'
}

fuzz() {
    configure_and_build fuzz -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER=clang++ \
        -DCMAKE_CXX_FLAGS="-O1" -DEIGHTFOLD_FUZZ=ON -DEIGHTFOLD_PROGRAMS=OFF \
        -DEIGHTFOLD_SANITIZE=fuzzer-no-link,address,undefined
    for target in manifest zip; do
        mkdir -p "$build/corpus-$target"
        (cd "$build" && "fuzz/fuzz/fuzz-$target" -max_total_time="${FUZZ_SECONDS:-10}" -rss_limit_mb=2048 -verbosity=0 \
            "corpus-$target" "$here/fuzz/seeds/$target")
    done
}

tidy() {
    release > /dev/null
    find "$here/src" "$here/programs" -name '*.cpp' ! -name 'trt_*' ! -name build.cpp ! -name stb_image.cpp -print0 |
        xargs -0 -P "$jobs" -n 4 clang-tidy --quiet -p "$build/release"
}

format() { find "$here" -name '*.cpp' -o -name '*.hpp' -o -name '*.h' | xargs clang-format --dry-run --Werror; }

arm64() {
    "$here/deps.sh" "$ort-aarch64" aarch64 > /dev/null
    cmake -S "$here" -B "$build/arm64" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$here/cmake/aarch64-linux-gnu.cmake" \
        -DONNXRUNTIME_ROOT="$ort-aarch64" -DOPENSSL_ROOT_DIR="$ort-aarch64" -DOPENSSL_USE_STATIC_LIBS=ON \
        -DZLIB_ROOT="$ort-aarch64" -DCMAKE_BUILD_TYPE=Release -DEIGHTFOLD_TESTS=ON > "$build/arm64.log" 2>&1 ||
        { cat "$build/arm64.log"; return 1; }
    cmake --build "$build/arm64" -j "$jobs"
    qemu-aarch64-static -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$ort-aarch64/lib" \
        "$build/arm64/tests/eightfold-tests"
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format parity asan tsan fuzz)
mkdir -p "$build"
prepare "${steps[@]}"
for step in "${steps[@]}"; do
    echo "check.sh: $step"
    "$step"
done
echo "check.sh: ${steps[*]}: passed"
