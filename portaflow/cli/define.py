"""portaflow new, validate, plan, schema, completion: what looks at a definition."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from portaflow.errors import Gathered, RejectedError, each
from portaflow.load import Project, load
from portaflow.pipeline import Pipeline
from portaflow.plan import Plan, Run
from portaflow.session import Session
from portaflow.target import Target

from . import Failure, planned
from .options import again, as_json, print_json, read_date, read_params, with_open, with_run
from .scaffold import make

_PLACEHOLDER = "RUN-ID"

_path = click.argument("path", type=click.Path(path_type=Path))


@click.group()
def new() -> None:
    """Make something new from a template."""


@new.command("pipeline")
@click.argument("name")
@click.option("--yaml", is_flag=True, help="Define it in YAML instead of Python.")
def new_pipeline(name: str, yaml: bool) -> None:
    """Make folder NAME with a pipeline that runs at once on this machine."""
    for path in make(name, Path.cwd(), yaml):
        click.echo(f"made {path.relative_to(Path.cwd())}{'/' if path.is_dir() else ''}")
    click.echo(f"run it:  portaflow run {name}")


@click.command()
@_path
@with_run(_PLACEHOLDER)
@as_json
@with_open
def validate(
    opened: Callable[[], Target],
    path: Path,
    run_id: str,
    params: tuple[str, ...],
    date: str,
    as_json: bool,
) -> None:
    """Check the pipeline at PATH, the target, and that the one can run on the other."""
    wrong = Gathered()
    project = target = None
    with wrong.one():
        project = load(path)
    with wrong.one():
        target = opened()
    if project and target:
        with wrong.one():
            _plan(project, Session(target), run_id, params, date)
    error = wrong.all()
    if as_json:
        print_json({"ok": error is None, "errors": [str(e) for e in each(error)] if error else []})
    if error:
        if not as_json:
            Failure(error).show()
        sys.exit(2)
    if project and target and not as_json:
        count = len(project.pipeline.tasks)
        tasks = f"{count} task{'' if count == 1 else 's'}"
        click.echo(f"OK: {project.pipeline.name} ({tasks}) can run on target {target.name}")


@click.command()
@_path
@with_run(_PLACEHOLDER)
@as_json
@with_open
def plan(
    opened: Callable[[], Target],
    path: Path,
    run_id: str,
    params: tuple[str, ...],
    date: str,
    as_json: bool,
) -> None:
    """Show what a run of the pipeline at PATH would do, in order; start and write nothing.

    --json prints the exact requests that would be sent.
    """
    session = Session(opened())
    made = _plan(load(path), session, run_id, params, date)
    if as_json:
        print_json(made.to_json())
        return
    planned.show(made, session.backends.store.url("").rstrip("/"))
    if not run_id:
        click.echo()
        click.echo("Names and URIs follow from the run's id; --run-id shows those of that run.")
    given = [*(["--run-id", run_id] if run_id else []), *(["--date", date] if date else [])]
    for param in params:
        given += ["-p", param]
    click.echo(f"The exact requests: {again('plan', str(path), '--json', *given)}")


def _plan(
    project: Project, session: Session, run_id: str, params: tuple[str, ...], date: str
) -> Plan:
    given = read_params(params, project.pipeline.params)
    run = Run(id=run_id or _PLACEHOLDER, logical_date=read_date(date), params=given)
    return session.plan(project, run)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a pipeline, with which editors check pipeline.yaml."""
    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **Pipeline.model_json_schema(),
        }
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: eval "$(portaflow completion bash)"                    in ~/.bashrc
    zsh:  eval "$(portaflow completion zsh)"                     in ~/.zshrc
    fish: portaflow completion fish > ~/.config/fish/completions/portaflow.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise RejectedError(f"click knows no completion for {shell}")
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "portaflow", "_PORTAFLOW_COMPLETE").source())
