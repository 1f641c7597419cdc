"""Tables and figure of the experiment on sharpness."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.experiments.full_batch import warm_errors
from benchmarks.experiments.sharpness.decay import KINDS
from benchmarks.experiments.sharpness.grid import LABELS
from benchmarks.harness import pages
from benchmarks.harness.colours import BLACK, DARK_GREY, LOOKS
from benchmarks.harness.figures import few_ticks, panels
from benchmarks.harness.results import Content

DESCENTS = ("decay", "no decay")
STYLES = dict(zip(DESCENTS, ("-", ":"), strict=True))
WINDOWS = 20
"""Windows of a descent, of which medians are drawn in front of the values."""


def report(content: Content) -> str:
    """Return four tables: decay, its flow, the grid, and rank correlations."""
    texts = (
        pages.settings(content),
        "**Weight decay.** Medians over quarters of the descent.",
        _decay(content),
        "**The flow** and a descent on the loss of three weights: the sharpness"
        " of the sphere.",
        _flow(content),
        "**The grid.** Plain top eigenvalue / spherical top eigenvalue / test"
        " error in percent, means over seeds.",
        _grid(content),
        _deviations(content),
        "**Rank correlations** of top eigenvalue and test error over rates and"
        " batch sizes.",
        _correlations(content),
    )
    return "\n\n".join(texts)


def _decay(content):
    steps = content["settings"]["steps"]
    ends = [f"to step {steps * part // 4}" for part in range(1, 5)]
    rows = [["", "", *ends]]
    for name in DESCENTS:
        run = content["parts"][name]
        lines = {
            "plain": run["plain"],
            "plain / threshold": _ratio(run),
            "spherical": run["spherical"],
            **{f"norm of {key}": x for key, x in run["norms"].items()},
            "loss": run["loss"],
        }
        for line, values in lines.items():
            quarters = np.array_split(np.array(values, float), 4)
            cells = (f"{np.median(x):.3g}" for x in quarters)
            rows.append([name, line, *cells])
        shares = {"steps that raise the loss, %": run["rises"]}
        for kind in KINDS:
            error = np.median(warm_errors(run[kind], run["cold"][kind]))
            shares[f"{kind}: median warm error, %"] = error
        for line, share in shares.items():
            rows.append([name, line, "", "", "", f"{100 * share:.2g}"])
    return pages.table(rows, right=True)


def _ratio(run):
    return np.array(run["plain"], float) / run["threshold"]


def _flow(content):
    products = content["settings"]["products"]
    runs = [content["parts"][f"flow, {x:g}"] for x in products]
    # A time, a share of the last one, is in all of them.
    shown = [len(runs[0]["time"]) * part // 4 - 1 for part in range(1, 5)]
    times = (f"time {runs[0]['time'][x]:.3g}" for x in shown)
    rows = [["", *times, "largest error"]]
    predicted = [f"{runs[0]['predicted'][x]:.3f}" for x in shown]
    rows.append(["flow", *predicted, ""])
    for product, run in zip(products, runs, strict=True):
        cells = [f"{run['measured'][x]:.3f}" for x in shown]
        label = f"rate times decay {product:g}"
        rows.append([label, *cells, f"{run['error']:.2g}"])
    return pages.table(rows, right=True)


def means(content: Content, name: str, kind: str) -> np.ndarray:
    """Return means over seeds, of shape (batch sizes, rates).

    They are NaN where a training diverged.
    """
    settings, parts = content["settings"], content["parts"]
    rows = [
        [parts[f"{name}, {size}, {rate:g}"][kind] for rate in settings["rates"]]
        for size in settings["batch_sizes"]
    ]
    return np.array(rows, float).mean(-1)


def _additions(content: Content) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the label of each addition, and its means by kind."""
    for name in content["settings"]["additions"]:
        kinds = (*KINDS, "error", "loss")
        found = {kind: means(content, name, kind) for kind in kinds}
        yield LABELS[name], found


def _grid(content):
    settings = content["settings"]
    rates = (f"rate {rate:g}" for rate in settings["rates"])
    rows = [["", "batch size", *rates]]
    for label, found in _additions(content):
        columns = (found["plain"], found["spherical"], 100 * found["error"])
        for size, *points in zip(
            settings["batch_sizes"], *columns, strict=True
        ):
            cells = map(_point, *points)
            rows.append([label, str(size), *cells])
    return pages.table(rows, right=True)


def _point(plain, spherical, error):
    if not np.isfinite(plain):
        return "diverged"
    return f"{plain:.3g} / {spherical:.3g} / {error:.1f}"


def _deviations(content):
    """Return a sentence on deviations over seeds, and on residuals."""
    runs = [
        run
        for run in content["parts"].values()
        if "residual" in run and None not in run["plain"]
    ]
    deviations = [100 * np.std(run["error"], ddof=1) for run in runs]
    residuals = [
        np.max(np.divide(run["residual"], np.minimum(*(run[x] for x in KINDS))))
        for run in runs
    ]
    return (
        "The median standard deviation of test errors over seeds is"
        f" {np.median(deviations):.1f} points, the largest"
        f" {np.max(deviations):.1f}. Residuals are at most"
        f" {100 * np.max(residuals):.1g} % of the eigenvalue."
    )


def _correlations(content):
    rows = [["", *KINDS, "training loss"]]
    for label, found in _additions(content):
        error = found["error"].ravel()
        kinds = (*KINDS, "loss")
        rows.append([label, *(_rank(found[x].ravel(), error) for x in kinds)])
    return pages.table(rows, right=True)


def _rank(x, y):
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < 3:
        return ""
    return f"{stats.spearmanr(x[keep], y[keep]).statistic:.2f}"


def figures(content: Content) -> dict[str, Figure]:
    """Draw four panels: ratio and sharpness, norms, the flow, and the grid."""
    drawn, axes = panels((2, 2), 2.9)
    _draw_decay(axes[0, 0], axes[0, 1], content)
    _draw_flow(axes[1, 0], content)
    _draw_grid(axes[1, 1], content)
    for panel in axes.flat:
        panel.legend()
    return {"sharpness": drawn}


def _draw_decay(above, norms, content):
    settings = content["settings"]
    every = settings["record"]
    steps = np.arange(every, settings["steps"] + 1, every)
    for name in DESCENTS:
        run = content["parts"][name]
        relative = np.array(run["spherical"], float) / run["threshold"]
        lines = {"plain": _ratio(run), "spherical": relative}
        _draw_lines(above, steps, lines, name)
        _draw_lines(norms, steps, run["norms"], name)
    above.axhline(1, color=DARK_GREY, linewidth=1)
    above.set(xlabel="step", ylabel="top eigenvalue / plain threshold")
    above.set_title("full-batch descent (thick: medians)")
    norms.set(xlabel="step", ylabel="norm", title="its kernels")


def _draw_lines(axes, steps, lines, name):
    """Draw values, and in front of them the medians of windows."""
    for look, (label, values) in zip(LOOKS, lines.items(), strict=False):
        y, thin = np.array(values, float), {"linewidth": 0.8, "alpha": 0.35}
        axes.plot(steps, y, color=look["color"], **thin)
        windows = [np.array_split(x, WINDOWS) for x in (steps, y)]
        middles = [[np.median(w) for w in x if len(w)] for x in windows]
        options = {"markevery": 4, "label": f"{label}, {name}"}
        axes.plot(*middles, linestyle=STYLES[name], **look, **options)


def _draw_flow(axes, content):
    products = content["settings"]["products"]
    first = content["parts"][f"flow, {products[0]:g}"]
    axes.plot(first["time"], first["predicted"], color=BLACK, label="flow")
    for index, product in enumerate(products):
        run, look = content["parts"][f"flow, {product:g}"], LOOKS[index]
        options = {"fillstyle": "none", "markersize": 9 - 4 * index}
        label = f"rate x decay {product:g}"
        axes.plot(
            *(run["time"], run["measured"]),
            **{**look, **options, "linestyle": "", "label": label},
        )
    axes.set(xlabel="steps x rate x decay")
    axes.set(ylabel="spherical sharpness", title="loss of three weights")


def _draw_grid(axes, content):
    for look, (label, found) in zip(LOOKS, _additions(content), strict=False):
        x, y = found["spherical"].ravel(), 100 * found["error"].ravel()
        axes.plot(x, y, linestyle="", label=label, **look)
    axes.set(xscale="log", xlabel="spherical top eigenvalue")
    few_ticks(axes.xaxis)
    axes.set(ylabel="test error (%)", title="grid of rates and batch sizes")
