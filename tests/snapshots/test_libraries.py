"""The library matrix: use it, hang in a cell, go on in the copy, use it again.

Each row runs the same code before and after, with the real library, and prints the same.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import pytest

from worker.copies_double import SnapshotDouble

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY_S = 120.0
HANG = "import itertools; max(itertools.repeat(1))"


class Row(NamedTuple):
    """One library."""

    name: str
    modules: tuple[str, ...]
    before: str
    """What is imported and made, once."""
    use: str
    """What is done with it: before the copy is taken, and in the copy."""


ROWS = [
    Row(
        "numpy",
        ("numpy",),
        "import numpy as np\na = np.arange(250000.0).reshape(500, 500)",
        "print((a @ a).sum(), np.linalg.svd(a[:50, :50])[1][0])",
    ),
    Row(
        "scipy",
        ("scipy",),
        "import numpy as np, scipy.linalg, scipy.fft, scipy.sparse.linalg\na = np.eye(300) * 2 + 1",
        "print(scipy.linalg.inv(a).sum(), abs(scipy.fft.fft2(a, workers=2)).sum())",
    ),
    Row(
        "scikit-learn",
        ("sklearn",),
        "import numpy as np\nfrom sklearn.cluster import KMeans\n"
        "from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier\n"
        "x = np.random.default_rng(1).random((2000, 4)); y = x[:, 0] > 0.5",
        "print(KMeans(3, n_init=1, random_state=1).fit(x).inertia_,"
        " HistGradientBoostingClassifier(max_iter=5).fit(x, y).score(x, y),"
        " RandomForestClassifier(5, n_jobs=2, random_state=1).fit(x, y).score(x, y))",
    ),
    Row(
        "torch",
        ("torch",),
        "import torch\nmodel = torch.nn.Linear(200, 200)\nx = torch.ones(600, 200)",
        "model.zero_grad(); (model(x) ** 2).sum().backward()\n"
        "print(model.weight.grad.sum().item(), (x @ x.T).sum().item())",
    ),
    Row(
        "xgboost",
        ("xgboost",),
        "import numpy as np, xgboost\nx = np.random.default_rng(1).random((500, 4))\n"
        "y = x[:, 0] > 0.5",
        "print(xgboost.XGBClassifier(n_estimators=5).fit(x, y).predict_proba(x).sum())",
    ),
    Row(
        "lightgbm",
        ("lightgbm",),
        "import numpy as np, lightgbm\nx = np.random.default_rng(1).random((500, 4))\n"
        "y = x[:, 0] > 0.5",
        "model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=2).fit(x, y)\n"
        "print(model.booster_.predict(x).sum())",
    ),
    Row(
        "pyarrow",
        ("pyarrow",),
        "import pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq\n"
        "table = pa.table({'a': [i % 7 for i in range(100000)]})",
        "pq.write_table(table, 'table'); again = pq.read_table('table')\n"
        "print(again.group_by('a').aggregate([('a', 'sum')]).num_rows)",
    ),
    Row(
        "duckdb",
        ("duckdb",),
        "import duckdb\ncon = duckdb.connect()\n"
        "con.execute('create table t as from range(1000000)')",
        "print(con.execute('select sum(range) from t').fetchall(),"
        " duckdb.connect().execute('select sum(range) from range(1000)').fetchall())",
    ),
    Row(
        "joblib",
        ("joblib",),
        "import joblib",
        "print(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(4)),"
        " joblib.Parallel(n_jobs=2, prefer='threads')(joblib.delayed(abs)(-i) for i in range(4)))",
    ),
    Row(
        "ThreadPoolExecutor",
        (),
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(3)",
        "print(list(pool.map(abs, range(-9, 0))))",
    ),
    Row(
        "asyncio.to_thread",
        (),
        "import asyncio",
        "print(await asyncio.gather(*(asyncio.to_thread(abs, -i) for i in range(9))),"
        " len(await asyncio.get_running_loop().getaddrinfo('localhost', 80)) > 0)",
    ),
    Row(
        "multiprocessing.Pool",
        (),
        "import multiprocessing",
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(pool.map(abs, range(-5, 0)))\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    print(pool.map(abs, range(-5, 0)))",
    ),
]


def needs(row: Row) -> None:
    missing = [name for name in row.modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install '.[libraries]')")


def run(worker: SnapshotDouble, code: str) -> str:
    outputs = worker.wait(worker.submit(code), LIBRARY_S)
    assert outputs.reply["status"] == "ok", outputs.reply
    return outputs.text()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_library_works_on_in_a_promoted_copy(row: Row, tmp_path: Path) -> None:
    needs(row)
    worker = SnapshotDouble.start(tmp_path)
    try:
        run(worker, row.before)
        expected = run(worker, row.use)
        copy = worker.snapshot()
        assert (copy.ready.kind, copy.ready.reasons, copy.ready.lost) == ("promotable", [], [])
        worker.submit(HANG)
        worker.recover(copy)
        assert run(worker, row.use) == expected
        # And in a copy of the copy.
        copy = worker.snapshot("again")
        assert copy.ready.kind == "promotable"
        worker.recover(copy)
        assert run(worker, row.use) == expected
        assert worker.stop(30.0) == 0
    finally:
        worker.close()


def test_polars_makes_a_donor_once_it_was_used(tmp_path: Path) -> None:
    if importlib.util.find_spec("polars") is None:
        pytest.skip("not installed: polars (pip install '.[libraries]')")
    worker = SnapshotDouble.start(tmp_path)
    try:
        run(worker, "import polars as pl\nframe = pl.DataFrame({'a': [1, 2, 3]})")
        imported = worker.snapshot()
        assert imported.ready.kind == "promotable"
        run(worker, "print(frame.filter(pl.col('a') > 1).sum())")
        used = worker.snapshot("used")
        assert used.ready.kind == "donor"
        assert "polars' thread pool" in used.ready.reasons
        assert not used.ready.is_faithful
        worker.recover(imported)
        assert "3" in run(worker, "print(frame.filter(pl.col('a') > 1).height + 1)")
    finally:
        worker.close()
