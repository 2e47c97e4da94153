#!/usr/bin/env bash
# Composes what the C++ runtime is built against for its own tests, from package registries alone:
#
#   deps.sh OUTPUT            headers of ONNX Runtime from Debian and the library of the installed onnxruntime wheel
#   deps.sh OUTPUT aarch64    the same with the library of the aarch64 wheel, for the cross-compiled tests
#
# OUTPUT becomes a folder with include/ and lib/, to be passed to CMake as ONNXRUNTIME_ROOT. The C API is versioned:
# headers work with any library that is not older than they are. Users pass a release archive of ONNX Runtime instead.
# PYTHON names the interpreter whose onnxruntime is used (default: python3). Does nothing when OUTPUT is complete.
set -euo pipefail

output=$(mkdir -p "$1" && cd "$1" && pwd)
machine=${2:-native}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Headers: any Debian that has the package will do, and trixie is the first that has it. On another release its index
# is read into a folder of its own, so that the system's package sources stay as they are.
headers() {
    mkdir -p "$work/deb" "$work/lists/partial" "$work/cache/archives/partial"
    local site
    site=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    [ -n "$site" ] || { echo "deps.sh: no Debian package source is configured; run: apt-get update" >&2; exit 1; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" > "$work/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$work/deb" && apt-get "${options[@]}" download libonnxruntime-dev)
    dpkg-deb -x "$work"/deb/*.deb "$work/root"
    mkdir -p "$output/include"
    cp -r "$work"/root/usr/include/onnxruntime/. "$output/include/"
}

# Debian 12's qemu-user crashes while it loads the library of newer wheels.
emulated_version=1.22.1

library() {
    mkdir -p "$output/lib"
    local capi
    if [ "$machine" = native ]; then
        capi=$("$python" -c 'import importlib.util as u, pathlib
print(pathlib.Path(u.find_spec("onnxruntime").origin).parent / "capi")')
    else
        "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
            --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" -d "$work/wheel" "onnxruntime==$emulated_version"
        "$python" -m zipfile -e "$work"/wheel/onnxruntime-*.whl "$work/unpacked"
        capi=$work/unpacked/onnxruntime/capi
    fi
    cp "$capi"/libonnxruntime.so.* "$output/lib/"
    local library
    library=$(cd "$output/lib" && ls libonnxruntime.so.* | grep -E '\.so\.[0-9]+\.[0-9]+\.[0-9]+$' | sort -V | tail -n 1)
    ln -sf "$library" "$output/lib/libonnxruntime.so.1"
    ln -sf libonnxruntime.so.1 "$output/lib/libonnxruntime.so"
}

[ -f "$output/include/onnxruntime_cxx_api.h" ] || headers
[ -e "$output/lib/libonnxruntime.so" ] || library
echo "$output"
