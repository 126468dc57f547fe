"""A first pipeline: it says which file it was given.

`python pipelines/hello.py` compiles it into packages/, where rules find it by name and version.
"""

from pathlib import Path

from kfp import compiler, dsl


# install_kfp_package=False: a local run uses the environment that it is started in, and installs nothing into it.
@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def greet(uri: str, size: int) -> str:
    """One step."""
    greeting = f"hello {uri}, you have {size} bytes"
    print(greeting)
    return greeting


@dsl.pipeline(name="hello")
def hello(uri: str, size: int, run_key: str = "", report_uri: str = "") -> str:
    """`run_key` and `report_uri` are passed by kfp-triggers to every pipeline that declares them."""
    return greet(uri=uri, size=size).output


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[1] / "packages" / "hello@v1.yaml"
    compiler.Compiler().compile(hello, str(target))
    print(f"wrote {target}")
