"""Recommendations from tracking events: Spark cleans, a container learns, Spark recommends."""

from __future__ import annotations

from portaflow import Cluster, ContainerTask, Pipeline, Size, Source, SparkTask

pipeline = Pipeline(
    name="recommendations",
    description="Top items for each user, learned from what users rated.",
    params={
        "scale": 1,  # each user of the sample becomes this many; 1000 is 1.5 million events
        "rank": 8,  # what the model learns of each user and item, in numbers
        "top_n": 10,  # recommendations for each user, at most
        "seed": 7,  # of the held-out split and the model's first guess
    },
    sources={"events": Source(package="pyspark", path="data/mllib/sample_movielens_data.txt")},
    # One cluster for both Spark tasks: it idles while the model is trained, which takes less
    # time than a second cluster needs to start.
    clusters=(
        Cluster(
            name="spark",
            workers=2,
            size=Size(cpu=2, memory="8Gi"),
            ttl="4h",
        ),
    ),
    tasks=(
        SparkTask(
            id="features",
            main="jobs/features.py",
            py_files=("jobs/value.py",),
            cluster="spark",
            inputs={"events": "events"},
            outputs=("ratings", "users", "items"),
            args=(
                *("--events", "{{ inputs.events }}"),
                *("--scale", "{{ params.scale }}"),
                *("--ratings", "{{ outputs.ratings }}"),
                *("--users", "{{ outputs.users }}"),
                *("--items", "{{ outputs.items }}"),
                *("--value", "{{ result }}"),
            ),
            timeout="1h",
        ),
        ContainerTask(
            id="train",
            image="train",
            inputs={"ratings": "features.ratings"},
            outputs=("user_factors", "item_factors"),
            command=("python", "train.py"),
            args=(
                *("--ratings", "{{ inputs.ratings }}"),
                *("--rank", "{{ params.rank }}"),
                *("--seed", "{{ params.seed }}"),
                *("--user-factors", "{{ outputs.user_factors }}"),
                *("--item-factors", "{{ outputs.item_factors }}"),
                *("--value", "{{ result }}"),
            ),
            timeout="1h",
        ),
        SparkTask(
            id="recommend",
            main="jobs/recommend.py",
            py_files=("jobs/value.py",),
            cluster="spark",
            inputs={
                "ratings": "features.ratings",
                "users": "features.users",
                "items": "features.items",
                "user_factors": "train.user_factors",
                "item_factors": "train.item_factors",
            },
            outputs=("recommendations",),
            args=(
                *("--ratings", "{{ inputs.ratings }}"),
                *("--users", "{{ inputs.users }}"),
                *("--items", "{{ inputs.items }}"),
                *("--user-factors", "{{ inputs.user_factors }}"),
                *("--item-factors", "{{ inputs.item_factors }}"),
                *("--top-n", "{{ params.top_n }}"),
                *("--recommendations", "{{ outputs.recommendations }}"),
                *("--value", "{{ result }}"),
            ),
            timeout="1h",
        ),
    ),
)
