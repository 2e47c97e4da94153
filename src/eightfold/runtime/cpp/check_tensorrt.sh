#!/usr/bin/env bash
# Compiles the TensorRT back end, without linking, against the headers of every TensorRT from JetPack 4.6 on:
#
#   check_tensorrt.sh TENSORRT_REPO [ONNX_TENSORRT_REPO]
#
# The arguments are clones (or bare repositories) of NVIDIA/TensorRT and onnx/onnx-tensorrt. The latter holds the
# parser's header, which the former's headers lack up to 10.13; a version whose header is in neither is checked with
# that of the version before. Without the second clone the builder is checked from 10.16 on only.
# Needs nlohmann-json (Debian's nlohmann-json3-dev, or JSON_INCLUDE, the folder that holds nlohmann/json.hpp).
# CUDA_INCLUDE names the CUDA toolkit's headers (default: /usr/local/cuda/include), CXX the compiler.
set -euo pipefail

[ -n "${1:-}" ] || { echo "usage: check_tensorrt.sh TENSORRT_REPO [ONNX_TENSORRT_REPO] (clones of NVIDIA/TensorRT and onnx/onnx-tensorrt)" >&2; exit 2; }
repository=$1
parser_repository=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
cuda=${CUDA_INCLUDE:-/usr/local/cuda/include}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
json=${JSON_INCLUDE:-/usr/include}
[ -f "$json/nlohmann/json.hpp" ] ||
    { echo "no nlohmann/json.hpp in $json: install nlohmann-json3-dev, or set JSON_INCLUDE" >&2; exit 1; }
[ -f "$cuda/cuda_runtime_api.h" ] || { echo "no CUDA headers in $cuda: set CUDA_INCLUDE" >&2; exit 1; }

# NVIDIA/TensorRT's history has no tags for all of these: version, then the commit that brought its headers.
versions="8.2=ca03dc6b 8.4=87f33944 8.5=b0c259a7 8.6=3d979324 10.0=d3107c88 10.3=84dd6ed1 10.7=17003e43
10.13=94e2b9ef 10.16=5302b288 11.0=771d8efd 11.1=82d1dca8"

mkdir -p "$work/generated/eightfold"
sed 's/@PROJECT_VERSION[A-Z_]*@/0/' "$here/include/eightfold/version.hpp.in" > "$work/generated/eightfold/version.hpp"

git_in() { git --git-dir="$([ -d "$1/.git" ] && echo "$1/.git" || echo "$1")" "${@:2}"; }

# The parser's header of the onnx-tensorrt commit that a TensorRT commit names as its submodule.
parser_header() {
    local commit
    [ -n "$parser_repository" ] || return 1
    commit=$(git_in "$repository" ls-tree "$1" parsers/onnx | awk '{print $3}')
    git_in "$parser_repository" show "$commit:NvOnnxParser.h" > "$work/parser.h" 2> "$work/messages" || return 1
    mv "$work/parser.h" "$2/NvOnnxParser.h"
}

compile() {
    "${CXX:-g++}" -std=c++17 -fsyntax-only -Wall -Wextra -Werror -Wno-deprecated-declarations \
        -I"$here/include" -I"$here/src" -I"$work/generated" -isystem "$1" -isystem "$cuda" -idirafter "$json" "$2"
}

parser=""
for pair in $versions; do
    include=$work/${pair%%=*}
    mkdir -p "$include"
    git_in "$repository" archive "${pair##*=}" include | tar x -C "$include" --strip-components=1
    [ -f "$include/NvOnnxParser.h" ] || parser_header "${pair##*=}" "$include" || true
    compile "$include" "$here/src/trt_common.cpp"
    compile "$include" "$here/src/trt_session.cpp"
    if [ -s "$include/NvOnnxParser.h" ]; then
        parser=${pair%%=*}
    elif [ -n "$parser" ]; then
        cp "$work/$parser/NvOnnxParser.h" "$include/"
    else
        echo "TensorRT ${pair%%=*}: runtime compiles; builder not checked (pass a clone of onnx/onnx-tensorrt)"
        continue
    fi
    compile "$include" "$here/src/trt_build.cpp"
    echo "TensorRT ${pair%%=*}: runtime and builder compile (parser's header of $parser)"
done
