"""Compile what every frame goes through: `python -m scripts.compiled [--require]`.

The modules of `ari_app.process.compiled`, with mypyc, for the Python that runs this. It takes half
a minute, and no time when it has been done. Where it cannot be done it says so, and the service
runs uncompiled.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ari_app.process.compiled import (
    COMPILED,
    MODULES,
    NATIVE,
    SHARED,
    SOURCES,
    folder_for,
    is_compiled,
    source_of,
)

_SHOWN_LINES = 12


def main() -> int:
    """Compile, and return the exit code: 2 where it cannot be done and `--require` asks for it, 130
    where it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m scripts.compiled", description=__doc__)
    parser.add_argument("--require", action="store_true", help="fail where it cannot be done")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build is not None:
        _build(options.build)
        return 0
    if is_compiled():
        return 0
    problem = _missing()
    if problem is None:
        _say("Compiling what every frame goes through (once, half a minute) ...")
        try:
            problem = _compile(folder_for())
        except KeyboardInterrupt:
            return 130
    if problem is None:
        return 0
    _say(f"Not compiled, so a call costs a third more of CPU time: {problem}")
    return 2 if options.require else 0


def _missing() -> str | None:
    """Return what keeps us from compiling, in a sentence; None: nothing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}); Debian's are the packages gcc and libc6-dev."
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "this Python's headers are not there; Debian's are the package python3-dev."
    return None


def _compile(folder: Path) -> str | None:
    """Compile into a folder, which is there only when all of it is; return what went wrong."""
    COMPILED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=COMPILED) as scratch:
        # The C compiler writes past `sys.stderr`.
        done = subprocess.run(
            [sys.executable, "-m", "scripts.compiled", "--build", scratch],
            cwd=SOURCES,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if "error" in line.lower()]
            return "\n".join((lines or done.stdout.splitlines())[:_SHOWN_LINES])
        for old in COMPILED.glob(f"{folder.name.rpartition('-')[0]}-*"):
            shutil.rmtree(old)
        Path(scratch, "libraries").rename(folder)
    return None


def _build(scratch: Path) -> None:
    from mypyc.build import mypycify
    from setuptools import Extension, setup
    from setuptools.command.build_ext import build_ext

    class BuildAtOnce(build_ext):  # type: ignore[misc]
        """Compiles as many files at once as there are cores; setuptools does one by one."""

        def build_extensions(self) -> None:
            compile_file, link = self.compiler._compile, self.compiler.link_shared_object
            begun: list[Future[None]] = []

            def link_when_done(*arguments: Any, **options: Any) -> None:
                for each in begun:
                    each.result()
                link(*arguments, **options)

            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                self.compiler._compile = lambda *file: begun.append(
                    pool.submit(compile_file, *file)
                )
                self.compiler.link_shared_object = link_when_done
                super().build_extensions()

    # One file for each module, and not what optimises between them: in one file, and with it, the
    # C compiler takes 2.5 times as long, and calls cost the same.
    extensions = mypycify(
        [str(source_of(module).relative_to(SOURCES)) for module in MODULES],
        group_name=SHARED.removesuffix("__mypyc"),
        target_dir=str(scratch / "sources"),
        opt_level="1",
        debug_level="0",
        multi_file=True,
    )
    native = Extension(
        NATIVE,
        [str(source_of(NATIVE).relative_to(SOURCES))],
        libraries=["m"],
        # Sums in any order, and without asking after each number whether it was one.
        extra_compile_args=["-O3", "-fopenmp-simd", "-fno-math-errno"],
    )
    build = ["--build-lib", str(scratch / "libraries"), "--build-temp", str(scratch / "objects")]
    setup(
        name="compiled",
        packages=[],
        py_modules=[],
        ext_modules=[*extensions, native],
        cmdclass={"build_ext": BuildAtOnce},
        script_args=["--quiet", "build_ext", *build],
    )


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    sys.exit(main())
