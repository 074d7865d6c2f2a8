#!/usr/bin/env python3
"""Makes a CUDA_HOME to link against, so that one program starts with CUDA's libraries and without them.

usage: shims.py FOLDER [TOOLKIT]      (in the repository; needs cargo, cc and ar, x86-64 Linux)

Linked in the usual way a program with feature `cuda` does not even start where libcuda.so.1 or cuBLAS is missing: the loader
ends it before main. The archives made here hold a jump for each function that candle's bindings know. At start they look for
the libraries with dlopen; where one is not found, its functions answer with its own code for "not initialised", which Sconce
tells as an error (device cuda:N) or meets with the CPU (device auto).

FOLDER gets lib/lib{cuda,cublas,cublasLt,curand,nvrtc,cudnn}.a; of TOOLKIT, a CUDA toolkit 13, everything else by links, and
its static CUDA runtime. Without TOOLKIT the runtime is empty: enough for a build with a stand-in for nvcc.
"""
import json
import pathlib
import re
import subprocess
import sys

# Folder of the bindings: library, the file that is looked for, its answer where it is not found.
LIBRARIES = {
    "driver": ("cuda", "libcuda.so.1", 100),  # CUDA_ERROR_NO_DEVICE
    "cublas": ("cublas", "libcublas.so.13", 1),  # CUBLAS_STATUS_NOT_INITIALIZED
    "cublaslt": ("cublasLt", "libcublasLt.so.13", 1),
    "curand": ("curand", "libcurand.so.10", 101),  # CURAND_STATUS_NOT_INITIALIZED
    "nvrtc": ("nvrtc", "libnvrtc.so.13", 11),  # NVRTC_ERROR_INTERNAL_ERROR
    "cudnn": ("cudnn", "libcudnn.so.9", 1001),  # CUDNN_STATUS_NOT_INITIALIZED
}
# Name and result. cudarc has functions of its own there too (culib).
FUNCTION = re.compile(
    r"^pub unsafe fn ((?:cu[A-Z]|cublas|curand|nvrtc|cudnn)\w+)\([^)]*\)(?: -> ([^{]*?))? \{", re.MULTILINE
)
HEAD = """#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static const char text[] = "{file} was not found";
__attribute__((unused)) static int status(void) {{ return {answer}; }}
__attribute__((unused)) static size_t number(void) {{ return 0; }}
__attribute__((unused)) static const char *words(void) {{ return text; }}
__attribute__((unused)) static int told(int error, const char **out) {{ (void)error; *out = text; return 0; }}
"""
JUMP = """__attribute__((visibility("hidden"))) void *sconce_shim_{name} = (void *){answer};
__asm__(".text\\n.globl {name}\\n.type {name},@function\\n{name}: jmp *sconce_shim_{name}(%rip)\\n.size {name},.-{name}\\n");
"""
TAIL = """static const struct {{ const char *name; void **function; }} functions[] = {{ {table} }};
__attribute__((constructor(101), used)) static void fill(void) {{
  void *library = dlopen("{file}", RTLD_LAZY);
  if (!library) return;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {{
    void *found = dlsym(library, functions[i].name);
    if (found) *functions[i].function = found;
  }}
}}
"""


def bindings():
    """Folder of the sources of cudarc, in the version of Cargo.lock."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--features=cuda", "--filter-platform=x86_64-unknown-linux-gnu"]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    (cudarc,) = [package for package in packages if package["name"] == "cudarc"]
    return pathlib.Path(cudarc["manifest_path"]).parent / "src"


def answer(name, result):
    """What stands in for a function, by what it returns."""
    if name in ("cuGetErrorString", "cuGetErrorName"):
        return "told"
    if "*const" in result:
        return "words"
    return "status" if re.search(r"(_t|result|Result)\s*$", result) else "number"


def archive(folder, source, name):
    made, packed = folder / f"{name}.o", folder / f"lib{name}.a"
    subprocess.run(["cc", "-O2", "-fPIC", "-x", "c", "-c", "-", "-o", made], input=source.encode(), check=True)
    packed.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", packed, made], check=True)
    made.unlink()


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    home = pathlib.Path(sys.argv[1])
    lib = home / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    for folder, (library, file, code) in LIBRARIES.items():
        text = (bindings() / folder / "sys" / "mod.rs").read_text()
        functions = dict(FUNCTION.findall(text))
        if not functions:
            sys.exit(f"{folder}: the bindings name no function in the form that is looked for")
        jumps = "".join(JUMP.format(name=name, answer=answer(name, result)) for name, result in functions.items())
        table = ", ".join(f'{{ "{name}", &sconce_shim_{name} }}' for name in functions)
        archive(lib, HEAD.format(file=file, answer=code) + jumps + TAIL.format(file=file, table=table), library)
        print(f"{library}: {len(functions)} functions")
    runtime = lib / "libcudart.a"
    runtime.unlink(missing_ok=True)
    if len(sys.argv) == 2:
        archive(lib, "", "cudart")
        return
    toolkit = pathlib.Path(sys.argv[2]).resolve()
    for entry in toolkit.iterdir():
        if entry.name not in ("lib", "lib64", "targets") and not (home / entry.name).is_symlink():
            (home / entry.name).symlink_to(entry)
    (static,) = sorted(toolkit.glob("lib*/**/libcudart_static.a"))[:1] or sys.exit(f"{toolkit} has no libcudart_static.a")
    runtime.symlink_to(static.resolve())


main()
