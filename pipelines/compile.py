"""`python -m pipelines.compile OUT`: the pipelines as packages for KFP and kfp.local, and each component's own YAML.

The same input gives the same bytes. Run by people and by the image's build; a test holds the committed component
files to it.
"""

import argparse
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from kfp import compiler, dsl

from pipelines import batch_inference, deploy, feedback, train
from pipelines.examples import container_component, v1_component
from pipelines.placement import IMAGE, OPTIONAL, REQUIRED, RETRIES, SECRET, Placement

COMPONENTS = Path(__file__).parent / "components"
Pipelines = Mapping[str, Callable[[Placement], dsl.base_component.BaseComponent]]
PIPELINES: Pipelines = {
    batch_inference.NAME: batch_inference.batch_inference,
    train.NAME: train.train,
    feedback.NAME: feedback.feedback,
    deploy.NAME: deploy.deploy,
}
EXAMPLES: Pipelines = {
    container_component.NAME: container_component.container_component,
    v1_component.NAME: v1_component.v1_component,
}


def compile_pipelines(out: Path, placement: Placement, version: str, pipelines: Pipelines = PIPELINES) -> list[Path]:
    """Writes `<pipeline>@<version>.yaml` for each pipeline."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in pipelines.items():
        path = out / f"{name}@{version}.yaml"
        compiler.Compiler().compile(pipeline(placement), str(path))
        paths.append(path)
    return paths


def compile_components(components: Path = COMPONENTS) -> list[Path]:
    """Writes each component's component.yaml beside its code."""
    paths = []
    for folder in sorted(path.parent.name for path in COMPONENTS.glob("*/component.py")):
        module = importlib.import_module(f"pipelines.components.{folder}.component")
        path = components / folder / "component.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(getattr(module, folder), str(path))
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="folder for the pipelines' packages")
    parser.add_argument("--image", default=IMAGE, help="image of every step (default: %(default)s)")
    parser.add_argument("--version", default="v1", help="stands in the file names (default: %(default)s)")
    parser.add_argument(
        "--secret", default=SECRET, help="Kubernetes secret with storage and MLflow settings (default: %(default)s)"
    )
    parser.add_argument(
        "--secret-key",
        metavar="VARIABLE=KEY",
        action="append",
        default=[],
        help="a variable's key, where it has another name",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=RETRIES,
        help="of a step that is lost; 0 for the local backend (default: %(default)s)",
    )
    parser.add_argument("--cpu", default="", help="CPU request of every step, such as 500m")
    parser.add_argument("--memory", default="", help="memory request and limit of every step, such as 2Gi")
    parser.add_argument("--examples", action="store_true", help="also the pipelines of pipelines/examples")
    parser.add_argument("--components", action="store_true", help="also refresh every component.yaml")
    chosen = parser.parse_args()
    if chosen.out is None and not chosen.components:
        parser.error("say where the packages go (OUT), or --components, or both")
    keys = dict(pair.partition("=")[::2] for pair in chosen.secret_key)
    if unknown := [name for name, key in keys.items() if not key or name not in (*REQUIRED, *OPTIONAL)]:
        parser.error(
            f"--secret-key {', '.join(unknown)}: write VARIABLE=KEY; there is {', '.join((*REQUIRED, *OPTIONAL))}"
        )
    if chosen.retries < 0:
        parser.error("--retries must be 0 or more")
    made = compile_components() if chosen.components else []
    if chosen.out is not None:
        wanted = {**PIPELINES, **(EXAMPLES if chosen.examples else {})}
        placement = Placement(chosen.image, chosen.secret, keys, chosen.retries, chosen.cpu, chosen.memory)
        made += compile_pipelines(chosen.out, placement, chosen.version, wanted)
    for path in made:
        print(path)


if __name__ == "__main__":
    main()
