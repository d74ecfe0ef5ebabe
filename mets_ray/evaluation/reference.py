"""Writes the reference of a bundle's inputs beside it, where `pretrain` of an earlier version wrote none."""

from mets_ray.console import say
from mets_ray.errors import MetsError
from mets_ray.evaluation.calibrate import require_writable
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.pipelines.input_reference import make_reference, write_file


def write_reference(inputs: EvaluationInputs, result_uri: str) -> tuple[str, tuple[str, ...]]:
    """Write the reference that `reference_parts` were embedded for. Returns (its URI, notices); ("", ()) for none.

    It goes to the bundle's folder, or to the result's where that cannot be written to.
    """
    try:
        file = make_reference(inputs.dataset, inputs.predictor.bundle, inputs.embedded.bundle, inputs.config.seed)
    except MetsError as error:
        return "", (f"No reference of the bundle's inputs: {error.fact}.",)
    if file is None:
        return "", ()
    notices: tuple[str, ...] = ()
    try:
        require_writable(inputs.bundle_uri)
        uri = write_file(file, inputs.bundle_uri)
    except MetsError as error:
        uri = write_file(file, result_uri)
        notices = (
            f"The reference of inputs is {uri} and not beside the bundle: {error.fact}. Name it as reference_uri.",
        )
    say(f"reference: {uri}")
    return uri, notices
