"""Tables and figure of curvature, noise and learning rates by batch size."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.batch_size.curvature import outlier
from benchmarks.experiments.batch_size.rules import RULES, best, means, moved
from benchmarks.experiments.dense import NETWORKS
from benchmarks.harness import pages
from benchmarks.harness.colours import DARK_GREY, LOOKS, in_order, look
from benchmarks.harness.figures import key, keys, legend_under, panels
from benchmarks.harness.results import Content

EXCESS = {"measured": "excess", "rule": "rule", "rule with N e": "along"}
"""The lines of the first panel of the figure, with their numbers."""

VIEWS = ("directions", "weights")
"""The lines of the second."""

STYLES = ("-", "--", ":")


def predict(part: dict[str, Any], size: str) -> dict[str, float]:
    """Return the excess of the top eigenvalue of batches, and predictions.

    The rule with the R of random steps, the same with the square of N e in its
    place, e the top eigenvector of all examples, and the mean of <e, N e>.
    """
    value, found = part["full"], part["batches"][size]
    mean = {name: float(np.mean(x)) for name, x in found.items()}
    return {
        "top": mean["top"],
        "R": mean["square"] ** 0.5,
        "excess": mean["top"] - value,
        "rule": outlier(value, mean["square"] ** 0.5) - value,
        "along": outlier(value, mean["along"] ** 0.5) - value,
        "shift": mean["shift"],
        "residual": max(np.divide(found["residual"], found["top"])),
    }


def report(content: Content) -> str:
    """Return tables of curvature, of the noise scale and of rates."""
    texts = (
        pages.settings(content),
        "**Curvature of batches.** The mean top eigenvalue of batch Hessians"
        " in direction space, its excess over that of all examples, and"
        " predictions of the excess: by the rule, by the rule with"
        " |N e|² in place of R², and the mean of <e, N e>.",
        _curvature(content),
        "**Noise scale** along training, in examples.",
        _noise(content),
        "**Learning rates.** The best rate of each batch size, its loss, and"
        " rate and loss where a rule moves the best rate of the first batch"
        " size; a star marks the edge of the grid.",
        _rates(content),
    )
    return "\n\n".join(texts)


def _curvature(content):
    head = ("", "batch", "top", "all examples", "R", "excess", "rule")
    rows = [(*head, "rule / excess", "with N e", "<e, N e>", "residual")]
    for network in NETWORKS:
        part = content["parts"][f"{network}, curvature"]
        for size in part["batches"]:
            x = predict(part, size)
            cells = (
                *(f"{x['top']:.3f}", f"{part['full']:.3f}", f"{x['R']:.3f}"),
                *(f"{x['excess']:.3f}", f"{x['rule']:.4f}"),
                f"{100 * x['rule'] / x['excess']:.2g} %",
                *(f"{x['along']:.3f}", f"{x['shift']:.3f}"),
                f"{x['residual']:.1g}",
            )
            rows.append((network, size, *cells))
    return pages.table(rows, right=True)


def _noise(content):
    epochs = content["settings"]["epochs"]
    rows = [["", "", *(f"epoch {x}" for x in epochs)]]
    for network in NETWORKS:
        part = content["parts"][f"{network}, noise"]
        rows.append([network, "loss", *(f"{x:.4f}" for x in part["loss"])])
        for view, found in part["views"].items():
            cells = ["inf" if x is None else f"{x:.1f}" for x in found["scale"]]
            rows.append([network, view, *cells])
    return pages.table(rows, right=True)


def _rates(content):
    settings, parts = content["settings"], content["parts"]
    first = settings["batches"][0]
    head = ["", "batch", "best rate", "loss", "accuracy, %"]
    rows = [[*head, *(f"{x}: {y}" for x in RULES for y in ("rate", "loss"))]]
    for name in settings["optimizers"]:
        base = best(parts[f"{name}, batch {first}"])
        for size in settings["batches"]:
            part = parts[f"{name}, batch {size}"]
            index, losses = best(part), means(part)
            edge = "★" * (index in (0, len(losses) - 1))
            accuracy = 100 * np.mean(part["accuracy"][index])
            cells = [f"{part['rates'][index]:.2g}{edge}", _loss(losses[index])]
            cells.append(f"{accuracy:.1f}")
            for power in RULES.values():
                other = moved(base, power, size / first)
                known = other < len(losses)
                cells.append(f"{part['rates'][0] * 2.0**other:.2g}")
                cells.append(_loss(losses[other]) if known else "")
            rows.append([name, str(size), *cells])
    return pages.table(rows, right=True)


def _loss(value):
    return f"{value:.4f}" if np.isfinite(value) else "diverged"


def figures(content: Content) -> dict[str, Figure]:
    """Draw excess, noise scale and best rates."""
    drawn, [axes] = panels((1, 3), 3.6)
    excess, noise, rates = axes
    for network, style in zip(NETWORKS, LOOKS, strict=False):
        _draw_excess(excess, content, network, style)
        _draw_noise(noise, content, network, style)
    _draw_rates(rates, content)
    excess.set(xlabel="batch size", title="excess of the top eigenvalue")
    noise.set(xlabel="epoch", title="noise scale (examples)", yscale="log")
    rates.set(xlabel="batch size", title="best rate / that of the first")
    settings = content["settings"]
    sizes = settings["hessian_batches"][::2], settings["batches"]
    for panel, ticks in zip((excess, rates), sizes, strict=True):
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(ticks, [str(x) for x in ticks])
        panel.minorticks_off()
    networks = [key(x, **y) for x, y in zip(NETWORKS, LOOKS, strict=False)]
    for panel, labels in ((excess, [*EXCESS]), (noise, VIEWS)):
        legend_under(panel, [*networks, *keys(labels, STYLES)])
    legend_under(rates)
    return {"batch-size": drawn}


def _draw_excess(axes, content, network, style):
    part = content["parts"][f"{network}, curvature"]
    sizes = [int(x) for x in part["batches"]]
    found = [predict(part, x) for x in part["batches"]]
    for name, line in zip(EXCESS.values(), STYLES, strict=True):
        axes.plot(sizes, [x[name] for x in found], linestyle=line, **style)


def _draw_noise(axes, content, network, style):
    part = content["parts"][f"{network}, noise"]
    for view, line in zip(VIEWS, STYLES, strict=False):
        scale = np.array(part["views"][view]["scale"], float)
        epochs = content["settings"]["epochs"]
        axes.plot(epochs, scale, linestyle=line, **style)


def _draw_rates(axes, content):
    settings, parts = content["settings"], content["parts"]
    sizes = np.array(settings["batches"], float)
    for name in in_order(settings["optimizers"]):
        chosen = [parts[f"{name}, batch {x}"] for x in settings["batches"]]
        found = np.array([x["rates"][best(x)] for x in chosen])
        axes.plot(sizes, found / found[0], label=name, **look(name))
    for (name, power), line in zip(RULES.items(), ("-", ":"), strict=True):
        ratio = (sizes / sizes[0]) ** power
        axes.plot(sizes, ratio, line, color=DARK_GREY, lw=1, label=name)
