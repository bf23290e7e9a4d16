"""What libraries make comes to another process and goes on working there."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import pytest

from worker.broker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 120.0
"""Torch alone takes seconds to import, more on a busy machine."""


class Library(NamedTuple):
    """How something of a library is made, and what must be true of it in the other process."""

    module: str
    make: str
    check: str


LIBRARIES = {
    "numpy": Library(
        "numpy",
        "import numpy as np\nnp_x = np.arange(20_000.0); np_g = np.random.default_rng(1)\n"
        "np_next = np.random.default_rng(1).random()",
        "np_x.sum() == 199990000 and np_x.flags.writeable and np_g.random() == np_next",
    ),
    "pandas": Library(
        "pandas",
        "import pandas as pd\npd_x = pd.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]})\n"
        "pd_g = {'same': pd_x}",
        "pd_x.groupby('k').v.sum().to_dict() == {'a': 4, 'b': 2} and pd_g['same'] is pd_x",
    ),
    "scipy": Library(
        "scipy",
        "import scipy.sparse\nsp_x = scipy.sparse.eye(1000).tocsr()",
        "(sp_x @ sp_x).sum() == 1000",
    ),
    "scikit-learn": Library(
        "sklearn",
        "from sklearn.ensemble import HistGradientBoostingRegressor\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler\n"
        "sk_in = [[float(i)] for i in range(100)]\n"
        "sk_x = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=5))\n"
        "sk_x.fit(sk_in, list(range(100))); sk_out = list(sk_x.predict(sk_in))",
        "list(sk_x.predict(sk_in)) == sk_out and sk_x.fit(sk_in, list(range(100))) is sk_x",
    ),
    "torch": Library(
        "torch",
        "import torch\nto_x = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.ReLU())\n"
        "to_o = torch.optim.Adam(to_x.parameters())\n"
        "to_x(torch.ones(100)).sum().backward(); to_o.step()\n"
        "to_base = torch.zeros(10, 10); to_row = to_base[3]\n"
        "to_h = torch.ones(3, dtype=torch.bfloat16)\n"
        "with torch.no_grad(): to_out = to_x(torch.ones(100))",
        "torch.equal(to_x(torch.ones(100)), to_out)"
        " and to_o.param_groups[0]['params'][0] is to_x[0].weight"
        " and to_row.fill_(1) is to_row and float(to_base.sum()) == 10 and float(to_h.sum()) == 3",
    ),
    "polars": Library(
        "polars",
        "import polars as pl\npl_x = pl.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]})\n"
        "pl_l = pl_x.lazy().filter(pl.col('v') > 1); pl_x.group_by('k').agg(pl.col('v').sum())",
        "sorted(pl_x.group_by('k').agg(pl.col('v').sum()).rows()) == [('a', 4), ('b', 2)]"
        " and pl_l.collect().height == 2",
    ),
    "pyarrow": Library(
        "pyarrow",
        "import pyarrow as pa\npa_x = pa.table({'v': list(range(50_000))})",
        "pa_x.slice(5, 2).to_pydict() == {'v': [5, 6]}"
        " and pa_x.group_by('v').aggregate([]).num_rows == 50_000",
    ),
    "xgboost": Library(
        "xgboost",
        "import xgboost\nxg_in = [[float(i)] for i in range(50)]\n"
        "xg_x = xgboost.XGBRegressor(n_estimators=5).fit(xg_in, list(range(50)))\n"
        "xg_out = list(xg_x.predict(xg_in))",
        "list(xg_x.predict(xg_in)) == xg_out and xg_x.fit(xg_in, list(range(50))) is xg_x",
    ),
    "lightgbm": Library(
        "lightgbm",
        "import lightgbm, numpy as np\nlg_in = np.arange(100.0).reshape(-1, 1)\n"
        "lg_x = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(lg_in, lg_in[:, 0])\n"
        "lg_out = list(lg_x.predict(lg_in))",
        "list(lg_x.predict(lg_in)) == lg_out and lg_x.fit(lg_in, lg_in[:, 0]) is lg_x",
    ),
    "matplotlib": Library(
        "matplotlib",
        "import matplotlib.pyplot as plt\nplt.rcParams['lines.linewidth'] = 7\n"
        "mp_f, mp_a = plt.subplots(); mp_a.plot([1, 2]); plt.close(mp_f); plt.ioff()",
        "mp_f.axes[0] is mp_a and plt.rcParams['lines.linewidth'] == 7"
        " and not plt.isinteractive()"
        " and mp_f.savefig(__import__('io').BytesIO()) is None",
    ),
    "joblib": Library(
        "joblib",
        "import joblib, math\n"
        "jl_x = joblib.Parallel(n_jobs=1)(joblib.delayed(math.sqrt)(i) for i in [4])\n"
        "jl_d = joblib.delayed(math.sqrt)(4)",
        "jl_x == [2.0] and jl_d[0](*jl_d[1]) == 2.0",
    ),
}


class Two:
    """The worker that has made what the libraries make, and the one that it was carried to."""

    def __init__(self, first: WorkerDouble, second: WorkerDouble) -> None:
        self.second = second
        for name, library in LIBRARIES.items():
            if importlib.util.find_spec(library.module) is not None:
                made = first.wait(first.submit(library.make), START_S)
                assert made.reply["status"] == "ok", (name, made.reply)
        saved = first.wait(first.submit("%checkpoint save all.ckpt"), START_S)
        assert saved.reply["status"] == "ok", saved.reply
        self.saved = saved.text()
        loaded = second.wait(second.submit("%checkpoint load all.ckpt"), START_S)
        assert loaded.reply["status"] == "ok", loaded.reply
        self.loaded = loaded.text()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("libraries")
    workers = [WorkerDouble.start(folder), WorkerDouble.start(folder)]
    try:
        yield Two(*workers)
    finally:
        for worker in workers:
            worker.close()


@pytest.mark.parametrize("name", LIBRARIES)
def test_it_goes_on_working(two: Two, name: str) -> None:
    library = LIBRARIES[name]
    if importlib.util.find_spec(library.module) is None:
        pytest.skip(f"{name} is not installed: pip install -e .[libraries]")
    outputs = two.second.wait(two.second.submit(library.check), START_S)
    assert outputs.reply["status"] == "ok", (outputs.reply, two.saved, two.loaded)
    assert outputs.result in ("True", "np.True_"), (two.saved, two.loaded)


def test_nothing_is_missing(two: Two) -> None:
    assert "Not saved" not in two.saved
    assert "Not loaded" not in two.loaded


def test_a_connection_to_duckdb_is_named_and_left_behind(two: Two) -> None:
    if importlib.util.find_spec("duckdb") is None:
        pytest.skip("duckdb is not installed: pip install -e .[libraries]")
    two.second.wait(two.second.submit("import duckdb; con = duckdb.connect()"), START_S)
    text = two.second.wait(two.second.submit("%checkpoint save more.ckpt"), START_S).text()
    assert "  con: cannot pickle 'DuckDBPyConnection' object" in text
