"""The KFP component `checkout_code`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def checkout_code(
    repository: str,
    revision: str,
    run_key: str,
    report_uri: str,
    code: dsl.Output[dsl.Artifact],
) -> None:
    """The files of a model repository at exactly one commit, as a tar."""
    from pipelines.components.checkout_code.checkout import checkout
    from pipelines.report import Step

    with Step("income-training.checkout_code", run_key, report_uri) as step:
        checkout(repository, revision, code.path, step)
