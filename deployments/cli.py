"""The command ``steelyard``. Bad input ends with one line and exit code 2."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated

import typer

from core.campaign import FleetSpec, load_spec
from core.errors import UserError
from core.redact import redact, redact_logs
from deployments.commands.catalogue import benchmarks, datasets
from deployments.commands.compare import compare
from deployments.commands.exchange import export, import_
from deployments.commands.results import report, results
from deployments.commands.simulate import past_runs, print_estimate, simulate
from deployments.commands.store import gc, invalidate, rerun, status, upload
from deployments.console import SpecPath, complain, configure, console, say

app = typer.Typer(
    help="LLM evaluation campaigns: many models × many benchmarks, one specification, one result format.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
services = typer.Typer(help="Models that stay loaded between campaigns.", no_args_is_help=True)
app.add_typer(services, name="services")
app.add_typer(datasets, name="datasets")
for command in (benchmarks, simulate, status, rerun, invalidate, upload, gc, results, compare, report, export):
    app.command()(command)
app.command("import")(import_)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a model failed or a gate does not hold, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    redact_logs()
    sys.excepthook = _unforeseen
    try:
        app()
    except UserError as error:
        complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        complain("interrupted; what is stored stays, run the same command to go on")
        sys.exit(130)


def _unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of what nobody foresaw as anything else is printed, without secrets."""
    say(redact("".join(traceback.format_exception(kind, error, trace)).rstrip()), err=True)


def _terminate(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


@app.command()
def run(spec_path: SpecPath) -> None:
    """Run a campaign: what the store already holds is not computed again."""
    from deployments.launch import run_campaign

    configure()
    sys.exit(run_campaign(load_spec(spec_path)))


@app.command()
def rescore(spec_path: SpecPath) -> None:
    """Score a campaign's stored answers again, where a metric, a filter or a target has changed. Starts no engine."""
    from deployments.launch import rescore_campaign

    configure()
    sys.exit(rescore_campaign(load_spec(spec_path)))


@app.command()
def plan(spec_path: SpecPath) -> None:
    """Show where each model would run and why, how long the campaign would take and what it would cost. Starts nothing."""
    from core.benchmark.needed import doubts
    from core.planning.describe import placement_table
    from core.planning.plan import make_plan
    from core.planning.schedule.fleet_file import group_of
    from deployments.launch import check_spec

    configure()
    spec = load_spec(spec_path)
    check_spec(spec)
    planned = make_plan(spec)
    doubtful = doubts(spec.benchmarks, spec.datasets)
    fleet = planned.fleet
    past = past_runs(spec, group_of(fleet))
    out = console()
    out.print(
        f"Fleet: {fleet.nodes} × {fleet.gpus} {'GPUs' if fleet.device == 'cuda' else 'logical devices (no GPU)'} "
        f"of {fleet.gpu_memory_gb:g} GB"
    )
    out.print(placement_table(planned, spec.policy))
    for warning in (*planned.warnings, *doubtful):
        complain(f"warning: {warning}")
    print_estimate(spec, planned, past, out)


@app.command()
def models(
    sources: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Hub id, directory or s3:// URI.")],
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Fleet: machines.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Fleet: GPUs per machine.")] = None,
    gpu_memory_gb: Annotated[float | None, typer.Option(min=0.1, help="Fleet: GB per GPU.")] = None,
) -> None:
    """Show what checkpoints are and where they would run."""
    from core.model.checkpoint import read_checkpoint
    from core.model.fleet import resolve_fleet
    from core.planning.describe import checkpoint_table

    configure()
    given = {"nodes": nodes, "gpus": gpus, "gpu_memory_gb": gpu_memory_gb}
    chosen = {key: value for key, value in given.items() if value is not None}
    fleet = resolve_fleet(FleetSpec.model_validate(chosen) if chosen else None)
    for source in sources:
        console().print(checkpoint_table(read_checkpoint(source, revision), fleet))


@app.command()
def deploy(
    spec_paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[CAMPAIGN.YAML]...", help="Campaigns to register, with schedules.")
    ] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="Notify when a campaign fails or a score drops.")] = False,
    notify: Annotated[
        str | None, typer.Option(metavar="TYPE/NAME", help="Prefect notification block that sends the alerts.")
    ] = None,
) -> None:
    """Register work pools, deployments, schedules and automations with the Prefect server. Doing it again updates them."""
    configure()
    specs = [load_spec(path) for path in spec_paths or []]
    from deployments.deploy import deploy as register
    from deployments.deploy import deployments_table

    console().print(deployments_table(register(specs, alerts=alerts, notify=notify)))


@app.command()
def server(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 4200,
) -> None:
    """Run a Prefect server with its UI, until SIGTERM or Ctrl-C. Any other Prefect server will do as well."""
    from deployments.server import serve

    serve(host, port)


@app.command()
def worker(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="campaign, gpu or ray.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Runs at once; one per GPU on the pool gpu.")] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name in Prefect.")] = None,
) -> None:
    """Serve a work pool of the Prefect server: run what it sends on this machine, until SIGTERM or Ctrl-C."""
    from deployments.worker import run_worker

    run_worker(pool, limit, name)


@services.command("list")
def list_services() -> None:
    """List local clusters that keep models loaded."""
    from engines.distributed.cluster import local_clusters

    living = local_clusters()
    for cluster in living:
        say(cluster)
    if not living:
        say("none")


@services.command("stop")
def stop_services() -> None:
    """End every local cluster and the models loaded on it."""
    from engines.distributed.cluster import stop_all

    say(f"stopped {stop_all()}")


if __name__ == "__main__":
    main()
