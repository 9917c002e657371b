"""A team's dashboard in W&B, built from code: the panels that noise curves are compared with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asr_dni.noise import SIGMA, Strength

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

GROUP = "Group"
"""W&B's own name of the group of a run: the seeds of one setting, or a study."""


def noise_curve_workspace(
    entity: str, project: str, name: str = "Noise curves", strengths: Sequence[Strength] = (SIGMA,)
) -> "Workspace":
    """Return a workspace whose panels show what runs and studies log, see :mod:`asr_dni.evaluation.loggers.wandb_log`.

    Args:
        entity: whose the project is: a team or a user.
        project: the project.
        name: of the workspace.
        strengths: those that there are curves over.
    """
    from wandb_workspaces.reports.v2 import interface as panels
    from wandb_workspaces.workspaces import RunsetSettings, Section, Workspace, WorkspaceSettings

    curves: list[Any] = []
    for split, words in (("test", "test split"), ("val", "validation split")):
        for strength in strengths:
            prefix = f"noise_curve/{split}"
            over: dict[str, Any] = {
                "x": f"{prefix}/{strength.name}",
                "title_x": strength.label,
                "smoothing_type": "none",
            }
            accuracy = {**over, "y": [f"{prefix}/accuracy"], "title_y": "accuracy", "range_y": (0.0, 1.0)}
            curves += [
                panels.LinePlot(title=f"Accuracy, {words}", max_runs_to_show=100, **accuracy),
                panels.LinePlot(
                    title=f"Accuracy, {words}, groups: mean and standard deviation",
                    groupby=GROUP,
                    groupby_aggfunc="mean",
                    groupby_rangefunc="stddev",
                    **accuracy,
                ),
            ]
        curves.append(panels.LinePlot(title=f"Loss, {words}", **{**over, "y": [f"{prefix}/loss"]}))
    columns = ["sigma_train", "test/clean_accuracy", "test/midpoint"]
    ranking: list[Any] = [
        panels.ScatterPlot(
            title="Midpoint against sigma_train",
            x=panels.SummaryMetric("sigma_train"),
            y=panels.SummaryMetric("test/midpoint"),
        ),
        panels.ScatterPlot(
            title="What robustness costs: midpoint against clean accuracy",
            x=panels.SummaryMetric("test/clean_accuracy"),
            y=panels.SummaryMetric("test/midpoint"),
        ),
        panels.BarPlot(title="Midpoint", metrics=["test/midpoint"], groupby=GROUP, groupby_aggfunc="mean"),
        panels.ParallelCoordinatesPlot(
            columns=[panels.ParallelCoordinatesPlotColumn(panels.SummaryMetric(column)) for column in columns]
        ),
    ]
    learning: list[Any] = [
        panels.LinePlot(title="Loss", x="epoch", y=["train/loss", "val/loss"]),
        panels.LinePlot(title="Accuracy", x="epoch", y=["train/accuracy", "val/accuracy"]),
        panels.LinePlot(
            title="Validation accuracy under noise", x="epoch", metric_regex="val/accuracy@.*", y=[]
        ),
        panels.LinePlot(title="sigma_train", x="epoch", y=["sigma_train"], smoothing_type="none"),
    ]
    tables = [
        panels.WeavePanelSummaryTable(table_name=table)
        for table in ("study/matrix", "study/curves", "test/noise_curve_table")
    ]
    matrix: list[Any] = [panels.MediaBrowser(title="Matrix", media_keys=["study/heat_map"]), *tables]
    return Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            Section(name="Noise curves", panels=curves, is_open=True),
            Section(name="Ranking", panels=ranking, is_open=True),
            Section(name="Matrix and tables", panels=matrix, is_open=True),
            Section(name="Learning curves", panels=learning),
            Section(name="Settings", panels=[panels.RunComparer(diff_only="split")]),
        ],
        settings=WorkspaceSettings(max_runs=100),
        runset_settings=RunsetSettings(
            pinned_columns=["run:group", "run:jobType", *(f"summary:{column}" for column in columns)]
        ),
    )


def specification(workspace: "Workspace") -> Mapping[str, Any]:
    """Return what is sent to W&B for a workspace, as plain values."""
    view = workspace._to_model()
    return {
        "entityName": view.entity,
        "projectName": view.project,
        "displayName": view.display_name,
        "type": "project-view",
        "spec": view.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
