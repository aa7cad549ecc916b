"""new, validate, plan, schema: what looks at a definition and starts nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portaflow.load import load
from tests.cli.conftest import Invoke

Write = Callable[[str, str], Path]


@pytest.mark.parametrize("options", [(), ("--yaml",)])
def test_a_new_pipeline_is_valid_and_runs_at_once(
    place: Path, invoke: Invoke, options: tuple[str, ...]
) -> None:
    invoke("new", "pipeline", "demo", *options)
    assert invoke("validate", "demo").stdout == "OK: demo (2 tasks) can run on target local\n"
    result = invoke("run", "demo", "-p", "orders=10", "--json")
    tasks = json.loads(result.stdout)["tasks"]
    assert tasks[1]["value"]["orders"] == 10


def test_both_forms_of_a_new_pipeline_are_the_same(place: Path, invoke: Invoke) -> None:
    invoke("new", "pipeline", "demo")
    python = load(place / "demo").pipeline
    shutil.rmtree(place / "demo")
    invoke("new", "pipeline", "demo", "--yaml")
    assert load(place / "demo").pipeline == python


@pytest.mark.parametrize(("options", "file"), [((), "pipeline.py"), (("--yaml",), "pipeline.yaml")])
def test_the_spark_task_of_a_new_pipeline_is_right_once_its_marks_are_off(
    place: Path, invoke: Invoke, options: tuple[str, ...], file: str
) -> None:
    invoke("new", "pipeline", "demo", *options)
    definition = place / "demo" / file
    definition.write_text(definition.read_text().replace("# > ", ""))
    plan = json.loads(invoke("plan", "demo", "--json").stdout)
    kinds = [(a["verb"], a["kind"]) for a in plan["actions"]]
    assert ("start", "cluster") in kinds
    assert ("start", "job") in kinds
    assert kinds[-1] == ("stop", "cluster")


def test_new_makes_a_portaflow_toml_only_if_there_is_none_above(
    place: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (place / "portaflow.toml").read_text()
    invoke("new", "pipeline", "one")
    assert (place / "portaflow.toml").read_text() == before
    (place / "portaflow.toml").unlink()
    assert "made portaflow.toml" in invoke("new", "pipeline", "two").stdout
    below = place / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    invoke("new", "pipeline", "three")
    assert [p.name for p in below.iterdir()] == ["three"]


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", "../up", "a/b", "/abs", ".hidden", "_x", "-x", "a b", "a.b", "a\nb", "a\0b",
     'a"b', "{{a}}", "x" * 101, "é" * 101, "@NAME@"],
)  # fmt: skip
def test_new_refuses_a_name_that_is_no_name(place: Path, invoke: Invoke, name: str) -> None:
    before = sorted(place.rglob("*"))
    result = invoke("new", "pipeline", "--", name, code=2)
    assert "name" in result.stderr
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_new_overwrites_nothing(place: Path, invoke: Invoke, kind: str) -> None:
    taken = place / "demo"
    if kind == "folder":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(place / "nowhere")
    assert "exists already" in invoke("new", "pipeline", "demo", code=2).stderr
    assert not (place / "nowhere").exists()
    assert kind != "file" or taken.read_text() == "mine"
    assert kind != "folder" or not list(taken.iterdir())


def test_new_takes_a_name_in_any_language(place: Path, invoke: Invoke) -> None:
    invoke("new", "pipeline", "données")
    assert "OK: données" in invoke("validate", "données").stdout


def test_validate_reports_what_is_wrong_with_pipeline_and_target_alike(
    place: Path, invoke: Invoke
) -> None:
    (place / "pipeline.yaml").write_text("name: x\ntasks: [{kind: container, id: a, imge: b}]\n")
    (place / "portaflow.toml").write_text("[targets.local]\nmax_paralel = 3\n")
    result = invoke("validate", "pipeline.yaml", code=2)
    assert "did you mean 'image'?" in result.stderr
    assert "did you mean 'max_parallel'?" in result.stderr
    answer = json.loads(invoke("validate", "pipeline.yaml", "--json", code=2).stdout)
    assert answer["ok"] is False
    assert len(answer["errors"]) == 2


def test_validate_finds_what_only_the_target_can_refuse(invoke: Invoke, write: Write) -> None:
    write("gpu", "tasks=[sh('a', 'true', size={'gpu': 1})]")
    assert "size.gpu" in invoke("validate", "gpu", code=2).stderr


def test_validate_shows_at_once_all_that_it_finds(
    place: Path, invoke: Invoke, write: Write
) -> None:
    write(
        "bad",
        "params={'n': 1}, sources={'s': 'missing.csv'}, tasks=["
        "sh('a', '{{ one }}{{ params.n }}', env={'X': '{{ two }}'}),"
        "SparkTask(id='b', main='missing.py'),"
        "sh('c', '{{ inputs.s }}', inputs={'s': 's'}, size={'gpu': 1}),"
        "sh('d', 'true')]",
    )
    (place / "portaflow.toml").write_text("[targets.local]\ntasks.d.retrys = 3\n")
    assert "did you mean 'retries'" in invoke("validate", "bad", code=2).stderr
    (place / "portaflow.toml").unlink()
    errors = json.loads(invoke("validate", "bad", "--json", code=2).stdout)["errors"]
    for told in ("'missing.csv'", "'missing.py'", "'one' is undef", "'two' is undef", "size.gpu"):
        assert sum(told in error for error in errors) == 1, errors
    assert len(errors) == 5
    shown = invoke("validate", "bad", code=2).stderr
    assert [line.partition(" ")[0] for line in shown.splitlines() if "bad/" in line] == [
        "error:"
    ] * 4
    both = invoke("validate", "bad", "-p", "n=x", "-p", "m=1", "--json", code=2)
    assert len(json.loads(both.stdout)["errors"]) == 4  # the files, and the parameters


def test_validate_finds_every_mistake_of_a_graph_and_says_twenty(
    invoke: Invoke, write: Write
) -> None:
    tasks = ", ".join(f"sh('t{n}', 'true', after=['no{n}'])" for n in range(30))
    write("bad", f"tasks=[{tasks}]")
    assert len(json.loads(invoke("validate", "bad", "--json", code=2).stdout)["errors"]) == 30
    shown = invoke("validate", "bad", code=2).stderr
    assert shown.count("pipeline.py:") == 20
    assert shown.endswith("error: and 10 more\n")


def test_plan_shows_the_order_and_writes_nothing(place: Path, invoke: Invoke, write: Write) -> None:
    folder = write(
        "shop",
        "clusters=[Cluster(name='etl', workers=2)], tasks=["
        "SparkTask(id='clean', main='clean.py', cluster='etl', outputs=['rows'],"
        " args=['{{ outputs.rows }}'], inputs={'raw': 'load.raw'}),"
        "sh('load', 'true', outputs=['raw']),"
        "sh('count', 'wc', inputs={'rows': 'clean.rows'}, retries=2)]",
    )
    (folder / "clean.py").write_text("")
    before = sorted(place.rglob("*"))
    text = invoke("plan", "shop").stdout
    assert [p for p in sorted(place.rglob("*")) if "__pycache__" not in p.parts] == before
    heads = [line for line in text.splitlines() if line[:1].isdigit()]
    assert [h.split()[1:4] for h in heads] == [
        ["start", "container", "load"],
        ["start", "cluster", "etl"],
        ["start", "job", "clean"],
        ["stop", "cluster", "etl"],
        ["start", "container", "count"],
    ]
    for shown in (
        f"{{run}}    file://{place}/.portaflow/store/shop/RUN-ID",
        "clean.py (0 B)", "2 workers", "on cluster etl", "rows  {run}/clean/rows",
        "2 retries", "image is approximated", "clean ended, however", "pf-shop-clean-",
    ):  # fmt: skip
        assert shown in text


def test_plan_is_the_same_every_time_and_follows_the_run_id(invoke: Invoke, write: Write) -> None:
    write("shop", "tasks=[sh('a', 'echo {{ run_id }}')]")
    first = invoke("plan", "shop", "--json").stdout
    assert invoke("plan", "shop", "--json").stdout == first
    plan = json.loads(invoke("plan", "shop", "--json", "--run-id", "monday").stdout)
    assert plan["actions"][0]["request"]["command"][-1] == "echo monday"
    assert plan["actions"][0]["name"] != json.loads(first)["actions"][0]["name"]


PARAMS = "params={'n': 1, 'x': 0.5, 'b': False, 's': 'text', 'l': [], 'none': None}, tasks=["


@pytest.mark.parametrize(
    ("given", "value"),
    [("n=3", 3), ("n=1_000", 1000), ("x=3", 3), ("x=1e-3", 0.001), ("b=true", True),
     ("s=3", "3"), ("s=true", "true"), ("s=a=b", "a=b"), ("s=", ""), ("l=[1, 2]", [1, 2]),
     ("none=[1]", [1]), ("none=word", "word"), ("none={\"a\": 1}", {"a": 1}),
     ("none=2026-01-01", "2026-01-01"), ("none=NaN", "NaN"), ("none=inf", "inf")],
)  # fmt: skip
def test_a_parameter_is_read_as_its_default_is_typed(
    invoke: Invoke, write: Write, given: str, value: Any
) -> None:
    name = given.partition("=")[0]
    write("p", f"{PARAMS} sh('a', '{{{{ params.{name} | tojson }}}}')]")
    plan = json.loads(invoke("plan", "p", "-p", given, "--json").stdout)
    assert json.loads(plan["actions"][0]["request"]["command"][-1]) == value


@pytest.mark.parametrize(
    ("given", "said"),
    [("n", "name=value"), ("=3", "name=value"), ("nonne=3", "did you mean 'none'?"),
     ("n=three", "must be of type int"), ("n=true", "must be of type int"),
     ("b=1", "must be of type bool"), ("x=nan", "must be of type float"),
     ("l=" + "[" * 100_000, "must be of type list")],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(invoke: Invoke, write: Write, given: str, said: str) -> None:
    write("p", f"{PARAMS} sh('a', 'true')]")
    assert said in invoke("plan", "p", "-p", given, code=2).stderr


def test_the_date_is_what_templates_see(invoke: Invoke, write: Write) -> None:
    write("p", "tasks=[sh('a', '{{ ds }} {{ ts }}')]")
    plan = json.loads(invoke("plan", "p", "--date", "2026-02-03", "--json").stdout)
    shown = plan["actions"][0]["request"]["command"][-1]
    assert shown == "2026-02-03 2026-02-03T00:00:00+00:00"
    assert "--date 'soon'" in invoke("plan", "p", "--date", "soon", code=2).stderr


def test_the_next_command_has_the_options_of_this_one(invoke: Invoke, write: Write) -> None:
    write("p", "tasks=[sh('a', 'true')]")
    shown = invoke("plan", "p", "-t", "local", "--set", "max_parallel=3").stdout
    assert "portaflow plan p --json -t local --set max_parallel=3" in shown
    write("q", "params={'k': 1}, tasks=[sh('a', 'true')]")
    run = ("--run-id", "x", "--date", "2026-02-03", "-p", "k=2")
    assert f"portaflow plan q --json {' '.join(run)}" in invoke("plan", "q", *run).stdout


def test_the_schema_knows_the_keys_of_a_pipeline_in_yaml(invoke: Invoke, place: Path) -> None:
    """As an editor does: every key of the example is one that the schema names there."""
    import yaml

    schema = json.loads(invoke("schema").stdout)
    invoke("new", "pipeline", "demo", "--yaml")
    text = (place / "demo/pipeline.yaml").read_text().replace("# > ", "")
    document = yaml.safe_load(text)
    assert document.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= document.keys()
    kinds = schema["properties"]["tasks"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {"spark", "container", "call"}
    for task in document["tasks"]:
        body = schema["$defs"][kinds[task["kind"]].rpartition("/")[2]]
        assert body["additionalProperties"] is False
        assert task.keys() <= body["properties"].keys()
        assert set(body["required"]) <= task.keys()
    assert document["clusters"][0].keys() <= schema["$defs"]["Cluster"]["properties"].keys()


def test_the_schema_lets_an_editor_accept_the_short_forms(invoke: Invoke) -> None:
    """What YAML may say in short ("4Gi", workers: 2, a source's path), the schema allows."""
    schema = json.loads(invoke("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    defs = schema["$defs"]
    assert _accepts(defs["Size"]["properties"]["memory"], "string")
    assert _accepts(defs["Cluster"]["properties"]["workers"], "integer")
    assert _accepts(defs["Cluster"]["properties"]["timeout"], "string")
    assert _accepts(defs["Source"], "string")


def _accepts(schema: dict[str, Any], kind: str) -> bool:
    return any(kind in s.get("type", ()) for s in (schema, *schema.get("anyOf", ())))
