"""Runs a DAG by Airflow's own `dag.test()`, in Airflow's Python: `run_dag.py DAG.py TOLD.json`."""

import importlib.util
import json
import sys
from pathlib import Path

from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.session import create_session

path, told = map(Path, sys.argv[1:])
spec = importlib.util.spec_from_file_location(path.stem, path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
(dag,) = (value for value in vars(module).values() if isinstance(value, DAG))
run = dag.test()
with create_session() as session:
    states = {task.task_id: task.state for task in run.get_task_instances(session=session)}
    pushed = session.scalars(XComModel.get_many(run_id=run.run_id, key="return_value")).all()
    values = {one.task_id: XComModel.deserialize_value(one) for one in pushed}
told.write_text(json.dumps({"states": states, "values": values}, default=str), "utf-8")
