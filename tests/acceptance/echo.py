"""Compiles the smallest pipeline that says what it was given: `python echo.py PACKAGE`."""

import sys

from kfp import compiler, dsl


@dsl.component(base_image="python", install_kfp_package=False)
def say(uri: str, size: int) -> str:
    """Print and return it."""
    print(uri, size)
    return uri


@dsl.pipeline(name="echo")
def echo(uri: str, size: int) -> str:
    """One step."""
    return say(uri=uri, size=size).output


compiler.Compiler().compile(echo, sys.argv[1])
