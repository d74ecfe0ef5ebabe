"""A map of embeddings: t-SNE in 2 dimensions, and its picture as PNG bytes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, SCREEN_DPI, figure_titled, png_bytes

MOST_MAP_RECORDS = 2000
"""`embedding_map` takes no more: time grows faster than the number of records."""

MOST_MAP_GROUPS = 12
"""Groups of `draw_embedding_map` with a colour of their own."""

_MARKERS = ("o", "^")
_FEWEST_FOR_TSNE = 10
_COLLAPSED = 1e-9


def map_rows(records: int, seed: int) -> Int[np.ndarray, "drawn"]:
    """Rows, ascending, for `embedding_map`: all, or `MOST_MAP_RECORDS` of them drawn by `seed`."""
    if records <= MOST_MAP_RECORDS:
        return np.arange(records)
    return np.sort(np.random.default_rng(seed).choice(records, MOST_MAP_RECORDS, replace=False))


def embedding_map(embeddings: Float[np.ndarray, "record dimension"], seed: int) -> Float[np.ndarray, "record 2"]:
    """t-SNE in 2 dimensions, after principal components down to 50; the same for the same embeddings and seed.

    Neighbours mean something, distances between groups and sizes of groups nothing. Distances are Euclidean, which for
    embeddings of length 1 rank as cosines do. Below 10 records the map is the first two principal components instead,
    and equal embeddings, as of a collapsed encoder, all lie at 0.

    Raises MetsError for more than `MOST_MAP_RECORDS` records, none, and embeddings that are not finite.
    """
    records = len(embeddings)
    if not 0 < records <= MOST_MAP_RECORDS:
        raise MetsError(f"a map of {records} records, not 1 to {MOST_MAP_RECORDS}", hint="draw some with `map_rows`")
    if not np.isfinite(embeddings).all():
        raise MetsError(f"{int((~np.isfinite(embeddings)).sum())} values of `embeddings` are not finite")
    if np.ptp(embeddings, axis=0).max(initial=0.0) < _COLLAPSED:  # t-SNE divides by their deviation, and fails
        return np.zeros((records, 2))
    components = min(50, *embeddings.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    if components < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - components)))
    if records < _FEWEST_FOR_TSNE:
        return np.asarray(reduced[:, :2])
    # One thread: the order of its sums, and with it the map, would follow from the number of cores.
    model = TSNE(perplexity=min(30.0, (records - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(reduced), dtype=np.float64)


def draw_embedding_map(
    points: Float[np.ndarray, "record 2"], groups: Sequence[str], title: str, *, muted: Sequence[str] = ()
) -> bytes:
    """Records as points coloured by group, the most frequent group first in the legend, rare ones drawn on top.

    The 12 most frequent groups have a colour and mark of their own; all others are grey: nobody can tell 38 colours
    apart. Groups in `muted` are grey rings, below all others.
    Raises MetsError where there is no point, or another number of groups.
    """
    if len(points) != len(groups) or len(points) == 0:
        raise MetsError(f"{len(points)} points for {len(groups)} groups; both need the same number, not 0")
    figure = figure_titled(8.6, 6.2, title)
    axes = figure.subplots()
    of_record = np.array(groups, dtype=object)
    counts = Counter(groups)
    frequency = sorted(
        ((name, count) for name, count in counts.items() if name not in muted), key=lambda item: (-item[1], item[0])
    )
    others = [name for name, _ in frequency[MOST_MAP_GROUPS:]]
    size = float(np.clip(28000.0 / len(points), 14.0, 40.0))
    for name, colour in zip([name for name in muted if name in counts], ("#8a8a8a", "#c4c4c4"), strict=False):
        rows = of_record == name
        axes.scatter(
            points[rows, 0], points[rows, 1], s=size * 0.7, facecolors="none", edgecolors=colour, linewidths=0.9,
            label=f"{_count(counts[name])}  {name}",
        )  # fmt: skip
    quiet = len(axes.collections)
    if others:
        rows = np.isin(of_record, others)
        label = f"{_count(int(rows.sum()))}  other ({len(others)} groups)"
        axes.scatter(points[rows, 0], points[rows, 1], s=size * 0.7, color="#bbbbbb", linewidths=0, label=label)
    for position, (name, count) in enumerate(frequency[:MOST_MAP_GROUPS]):
        rows = of_record == name
        colour, marker = COLOURS[position % len(COLOURS)], _MARKERS[position // len(COLOURS)]
        axes.scatter(
            points[rows, 0], points[rows, 1], s=size, color=colour, marker=marker, alpha=0.75, linewidths=0,
            label=f"{_count(count)}  {name}",
        )  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    quiet += bool(others)  # drawn first, below all, and named last
    handles, labels = [*handles[quiet:], *handles[:quiet][::-1]], [*labels[quiet:], *labels[:quiet][::-1]]
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False, fontsize=9,
        title="Records  group", alignment="left", markerscale=1.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_color("#cccccc")
    return png_bytes(figure, SCREEN_DPI)


def _count(number: int) -> str:
    return f"{number:>5,}".replace(" ", "\u2007")  # figure spaces: as wide as a digit
