"""z_e and the codes in two principal components; dead codes are marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import ACTIVE_SHARE, PrincipalPlane
from vqdoctor.core.picture import INK
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, VERMILLION, Drawing, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[float, float]]


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the plane of the best source."""
    found = report.find(PrincipalPlane, layer)
    if found is None or not found.code_x:
        return
    codes = list(zip(found.code_x, found.code_y, strict=False))
    vectors = list(zip(found.vector_x, found.vector_y, strict=False))
    use = (*found.code_use, *[None] * len(codes))[: len(codes)]
    live = [at for at, times in zip(codes, use, strict=True) if times is None or times > ACTIVE_SHARE]
    dead = [at for at, times in zip(codes, use, strict=True) if times is not None and times <= ACTIVE_SHARE]
    listed = "" if len(codes) == found.sample_size else f"{len(codes):,} of {found.sample_size:,} codes. "
    listed += f"{len(vectors):,} of {found.vectors:,} z_e vectors. " if vectors else "No z_e is seen. "
    known = "" if found.code_use else "How often each code is used is unknown. "
    yield Drawing(
        title="z_e and codes in two principal components" if vectors else "Codes in two principal components",
        caption=f"{listed}{known}The plane holds {100 * (found.first + found.second):.1f} % of the variance.",
        head=("point", "first component", "second component", "times the uniform share"),
        rows=(
            *(("code", x, y, times) for (x, y), times in zip(codes, use, strict=True)),
            *(("z_e", x, y, None) for x, y in vectors),
        ),
        draw=lambda panel: _draw(panel, found, live, dead, vectors),
        height=3.6,
    )


def _draw(panel: Axes, found: PrincipalPlane, live: Points, dead: Points, vectors: Points) -> None:
    for points, form, color, size, alpha, label in (
        (vectors, "o", BLUE, 3.0, 0.7, "z_e"),
        (dead, "x", INK, 5.0, 0.8, f"dead codes ({len(dead):,})"),
        (live, "D", VERMILLION, 3.4, 0.9, f"codes in use ({len(live):,})" if found.code_use else "codes"),
    ):
        if points:
            x, y = zip(*points, strict=True)
            panel.plot(x, y, form, color=color, markersize=size, alpha=alpha, label=label)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel(f"first component ({100 * found.first:.1f} %), units of z_e")
    panel.set_ylabel(f"second ({100 * found.second:.1f} %)")
    panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, handletextpad=0.2)


PLOT = Plot(name="plane", place=30, drawings=drawings)
