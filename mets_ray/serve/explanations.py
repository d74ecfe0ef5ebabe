"""Explanations over HTTP: checked before anything is computed, encoded in the batches that all requests share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from mets_ray.errors import ConfigError, RequestError
from mets_ray.model import explain
from mets_ray.model.calibrations import Reason
from mets_ray.model.occlusion import Parts
from mets_ray.model.predictor import Predictor
from mets_ray.model.windows import Windows
from mets_ray.serve import messages
from mets_ray.serve.class_lists import ClassList
from mets_ray.serve.explanation_messages import ClassReasons, Explanation, NoStatements, StatementFacts

# Each holds some hundred windows while it waits for the encoder.
_AT_ONCE = 2
_DECIMALS = 5


class Explanations:
    """The explanations of one replica, a few at a time. encode: see `service.Encoder`."""

    def __init__(self, predictor: Predictor, encode: Callable[[np.ndarray, int], Awaitable[np.ndarray]]) -> None:
        self._predictor = predictor
        self._encode = encode
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._space = predictor.statement_space

    def classes_of(self, options: messages.Options, chosen: ClassList, windows: Windows) -> list[str]:
        """The classes to explain; none where nobody asks for it.

        Raises RequestError 422 for too many or unknown classes, RecordError for more than one window.
        """
        if not options.explain:
            if options.explain_classes is None:
                return []
            raise RequestError(
                422,
                "explain_classes_alone",
                "`explain_classes` is given, but nothing is to be explained",
                hint="set explain to true as well, or omit it",
            )
        explain.one_window(windows.signal_uv, self._predictor.signal.duration_s)
        wanted = list(chosen.classes) if options.explain_classes is None else options.explain_classes
        try:
            return explain.choose_classes(wanted, list(chosen.classes))
        except ConfigError as error:
            reason = "too_many_explained" if len(wanted) > explain.MOST_CLASSES else "bad_explain_classes"
            hint = f"{error.hint} in `explain_classes`" if reason == "too_many_explained" else error.hint
            raise RequestError(422, reason, error.fact, hint=hint) from error

    async def explain(
        self,
        windows: Windows,
        embedding: Float32[np.ndarray, "window dimension"],
        names: Sequence[str],
        chosen: ClassList,
        vectors: Tensor,
    ) -> Explanation:
        """Of the only window, which has been encoded. names: the classes to explain, of `chosen`."""
        window_uv = windows.signal_uv[0]
        parts = Parts.of(window_uv, self._predictor.signal.leads, self._predictor.signal.sampling_rate_hz)
        async with self._at_once:
            without = await asyncio.to_thread(parts.without, window_uv)
            # In turns with the windows of other requests: the later a window, the longer it lets others go first.
            found = await asyncio.gather(*(self._encode(without[n], n) for n in range(1, parts.windows)))
        of_class = dict(zip(chosen.classes, vectors.numpy(), strict=True))
        return _told(
            explain.explain(
                parts,
                np.stack([embedding[0], *found]),
                {name: of_class[name] for name in names},
                self._space,
                self._predictor.signal.leads,
                windows.start_s,
            )
        )


def refuse_explain(options: messages.Options, route: str) -> None:
    """Raise RequestError 422 where an explanation is asked of a route that gives none."""
    if options.explain or options.explain_classes is not None:
        raise RequestError(
            422,
            "explain_elsewhere",
            f"{route} gives no explanations",
            hint="send one ECG of one window to /v1/zero-shot with explain=true",
        )


def _told(found: explain.Explanation) -> Explanation:
    return Explanation(
        leads=list(found.leads),
        start_s=round(found.start_s, _DECIMALS),
        segment_s=found.segment_s,
        nearest=_statements(found.nearest),
        no_statements=_none_of(found.no_statements),
        classes=[
            ClassReasons(
                class_name=row.class_name,
                similarity=row.similarity,
                near=_statements(row.near),
                far=_statements(row.far),
                no_statements=_none_of(row.no_statements),
                lead_drops=_rounded(row.lead_drops),
                segment_drops=_rounded(row.segment_drops),
                drops=[_rounded(of_lead) for of_lead in row.drops],
            )
            for row in found.classes
        ],
        windows_encoded=found.windows_encoded,
    )


def _statements(rows: Sequence[explain.Statement]) -> list[StatementFacts]:
    return [StatementFacts(text=row.text, patients=row.patients, similarity=row.similarity) for row in rows]


def _none_of(why: Reason | None) -> NoStatements | None:
    return None if why is None else NoStatements(reason=why[0], message=why[1])


def _rounded(values: Float32[np.ndarray, " part"]) -> list[float]:
    rounded: list[float] = values.astype(np.float64).round(_DECIMALS).tolist()
    return rounded
