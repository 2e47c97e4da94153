#!/usr/bin/env bash
# Composes what the C++ runtime is built against for its own tests, from package registries alone:
#
#   deps.sh OUTPUT            headers of ONNX Runtime from Debian and the library of the installed onnxruntime wheel
#   deps.sh OUTPUT aarch64    the same with the library of the aarch64 wheel, and with zlib and OpenSSL for arm64 from
#                             Debian as static libraries, for the cross-compiled tests
#   deps.sh OUTPUT opencv     headers of OpenCV from Debian, to compile the camera example with
#
# OUTPUT becomes a folder with include/ and lib/, to be passed to CMake as ONNXRUNTIME_ROOT. The C API is versioned:
# headers work with any library that is not older than they are. Users pass a release archive of ONNX Runtime instead,
# or this folder. PYTHON names the interpreter whose onnxruntime is used (default: python3). Does nothing when OUTPUT is
# complete. Nothing is installed: packages are unpacked into OUTPUT, so that root is not needed.
set -euo pipefail

output=$(mkdir -p "$1" && cd "$1" && pwd)
machine=${2:-native}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Unpacks packages into $work/root. The release and the architecture need not be this system's: the package index is
# read into a folder of its own, and the system's package sources stay as they are.
unpack() { # release, architecture, package...
    local release=$1 architecture=$2 site
    shift 2
    rm -rf "$work"/{deb,lists,cache,root}
    mkdir -p "$work"/{deb,lists/partial,cache/archives/partial,root}
    site=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    [ -n "$site" ] || { echo "deps.sh: no Debian package source is configured; run: apt-get update" >&2; exit 1; }
    echo "deb [arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release main" \
        > "$work/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "APT::Architecture=$architecture"
        -o "APT::Architectures::=$architecture" -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$work/deb" && apt-get "${options[@]}" download "$@")
    for package in "$work"/deb/*.deb; do dpkg-deb -x "$package" "$work/root"; done
}

# Debian 13 is the first that has them.
headers() {
    unpack trixie amd64 libonnxruntime-dev
    mkdir -p "$output/include"
    cp -r "$work"/root/usr/include/onnxruntime/. "$output/include/"
}

# Those of Debian 12 link with the C library of newer releases, too.
static_libraries() {
    unpack bookworm arm64 zlib1g-dev libssl-dev
    mkdir -p "$output"/{include,lib}
    cp -r "$work"/root/usr/include/{openssl,zconf.h,zlib.h} "$output/include/"
    cp -r "$work"/root/usr/include/aarch64-linux-gnu/. "$output/include/"
    cp "$work"/root/usr/lib/aarch64-linux-gnu/lib{z,crypto,ssl}.a "$output/lib/"
}

opencv() {
    unpack bookworm amd64 libopencv-{core,highgui,imgcodecs,imgproc,videoio}-dev
    mkdir -p "$output/include"
    cp -r "$work"/root/usr/include/opencv4/. "$output/include/"
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

if [ "$machine" = opencv ]; then
    [ -f "$output/include/opencv2/videoio.hpp" ] || opencv
else
    [ -f "$output/include/onnxruntime_cxx_api.h" ] || headers
    [ -e "$output/lib/libonnxruntime.so" ] || library
    [ "$machine" = native ] || [ -f "$output/lib/libcrypto.a" ] || static_libraries
fi
echo "$output"
