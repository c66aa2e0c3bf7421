"""The headlines of a comparison and of a gradient flow in plain words."""

from __future__ import annotations

from trajcheck.reports.page.sentences import Words
from trajcheck.reports.reading.report import SavedReport
from trajcheck.reports.terminal.layout import number

_LINE = {"own": "the batch of a's record", "probe": "a's probe batches", "full": "the whole data set"}


def comparison_words(report: SavedReport) -> Words:
    """Where each other run ends, and how high the loss rises on the way there."""
    words, summary = Words(), report.summary
    for run, head in summary["headline"].items():
        pair = f"step {head['step_a']} of the first and step {head['step_b']} of this run"
        if head["dist"] is None or head["relative_dist"] is None:
            words.unsaid[f"the distance to {run}"] = report.why_empty("dist", "relative_dist")
        else:
            cosine = head["displacement_cos"]
            same = "" if cosine is None else f"; the cosine of their displacements is {number(cosine)}"
            words.said.setdefault(run, []).append(
                f"At the last pair, {pair}, the two are {number(head['dist'])} apart, "
                f"{number(head['relative_dist'])} times the larger of their distances from their own first records"
                f"{same} ({summary['inits'][run]['text']})."
            )
        _barrier(report, run, words)
    return words


def _barrier(report: SavedReport, run: str, words: Words) -> None:
    head, line = report.summary["headline"][run], report.summary["line"]
    about = f"the loss on the line to {run}"
    if line is None:
        words.unsaid[about] = "it was not evaluated: that needs --objective"
        return
    if head.get("max_barrier") is None:
        words.unsaid[about] = report.why_empty("barrier")
        return
    step = head["max_barrier_step_a"]
    found = report.series("compare", "barrier_resolution", run_b=run)
    resolution = float(found.values[found.steps == step][0])
    on = f"at {len(line['points']) - 2} points, on {_LINE[line['sample']]}"
    if head["max_barrier"] <= resolution:
        words.said.setdefault(run, []).append(
            f"On the lines, {on}, the loss nowhere rises above the line between its ends by more than rounding."
        )
        return
    error = head.get("max_barrier_se")
    if line["sample"] == "probe" and error is None:
        words.unsaid[about] = "its standard error is not known"
        return
    spread = f" ± {number(error, 2)} (standard error)" if error is not None else ""
    if line["sample"] == "own":
        spread = " (one batch: no standard error)"
    words.said.setdefault(run, []).append(
        f"On the lines, {on}, the loss rises at most {number(head['max_barrier'])}{spread} above the line between its "
        f"ends, at step {step}; rounding accounts for {number(resolution, 2)}."
    )


def flow_words(report: SavedReport) -> Words:
    """How far the run is from its flow, and what the bound says."""
    words, summary = Words(), report.summary
    head, flow = summary["headline"], summary["flow"]
    if head["max_flow_dist"] is None or head["max_flow_error"] is None:
        words.unsaid["the distance to the flow"] = report.why_empty("flow_dist")
        return words
    relative = head["relative_there"]
    share = "" if relative is None else f", {number(relative)} of its distance from the start"
    said = words.said.setdefault("Distance to gradient flow", [])
    said.append(
        f"On sample {flow['sample']}, the run is farthest from gradient flow at step {head['max_flow_dist_step']}: "
        f"{number(head['max_flow_dist'])}{share}. The error of the integration, by two tolerances, is at most "
        f"{number(head['max_flow_error'], 2)}."
    )
    wanted = head.get("wanted")
    if wanted and wanted["eta"] is not None:
        said.append(
            f"By the bound of Elkabetz and Cohen, with constants sampled on the flow and so an estimate, a distance of "
            f"at most {number(wanted['distance'])} needs a learning rate of {number(wanted['eta'])}."
        )
    return words
